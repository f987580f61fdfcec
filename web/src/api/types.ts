// The shapes of /v1, as api/v1/*.go has them. Times are RFC 3339 text.

export interface TokenUsage {
  input_tokens: number;
  cached_input_tokens?: number;
  output_tokens: number;
}

export interface Limits {
  memory_bytes?: number;
  cpus?: number;
  processes?: number;
  disk_bytes?: number;
}

export type SandboxState = "none" | "starting" | "ready" | "busy" | "pausing" | "paused" | "resuming" | "lost";

export interface SessionSandbox {
  state: SandboxState;
  id?: string;
  kernel_id?: string;
  reason?: string;
  message?: string;
  limits?: Limits;
  started_at?: string;
  expires_at?: string;
}

/** Of GET /v1/sandboxes/{id}: what a sandbox that sleeps is told of. */
export interface SleepingSandbox {
  paused_at?: string;
  saved_bytes?: number;
}

export type TurnStatus = "running" | "ok" | "stopped" | "error" | "limit" | "cut";

export interface Turn {
  id: string;
  message_id: string;
  model: string;
  status: TurnStatus;
  code?: string;
  message?: string;
  round: number;
  usage: TokenUsage;
  started_at: string;
  finished_at?: string;
}

export interface QueuedMessage {
  id: string;
  text: string;
  files?: string[];
  created_at: string;
}

export interface Session {
  id: string;
  title: string;
  pinned: boolean;
  model: string;
  template: string;
  sandbox: SessionSandbox;
  turn?: Turn;
  last_turn?: Turn;
  queue: QueuedMessage[];
  usage: TokenUsage;
  item_count: number;
  last_seq: number;
  created_at: string;
  updated_at: string;
  deleted_at?: string;
}

export type ItemKind = "user" | "assistant" | "cell" | "note" | "tool";

export type ItemStatus =
  | "idle"
  | "writing"
  | "queued"
  | "running"
  | "ok"
  | "error"
  | "interrupted"
  | "timeout"
  | "killed"
  | "aborted"
  | "stopped"
  | "cut";

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

export interface ToolCall {
  id: string;
  name: string;
  arguments?: Json;
  result?: Json;
  error?: string;
}

export interface FileChange {
  path: string;
  change: "created" | "modified" | "deleted";
  size_bytes?: number;
}

export interface InputRequest {
  prompt: string;
  password: boolean;
}

export interface OutputRef {
  bytes: number;
}

/**
 * One nbformat 4.5 output. In the store, streams are StreamOutput (see
 * features/session/outputs.ts): `text` is put together when it is read, and
 * `chunks` gives the pieces to those who follow a long one.
 */
export interface Output {
  output_type: "stream" | "display_data" | "execute_result" | "error";
  name?: string;
  readonly text?: string;
  execution_count?: number;
  data?: Record<string, Json>;
  metadata?: Record<string, Json>;
  ename?: string;
  evalue?: string;
  traceback?: string[];
  /** The name under which code may update a display later. */
  display_id?: string;
  /** Values that were too large to come along: mime type, or "text". */
  refs?: Record<string, OutputRef>;
}

export interface Item {
  id: string;
  kind: ItemKind;
  turn_id?: string;
  siblings?: string[];
  text?: string;
  reasoning?: string;
  files?: string[];
  model?: string;
  tool?: ToolCall;
  code?: string;
  edited?: boolean;
  outputs?: Output[];
  execution_id?: string;
  execution_count?: number;
  started_at?: string;
  finished_at?: string;
  duration_ms?: number;
  output_bytes?: number;
  dropped_bytes?: number;
  output_file?: string;
  input?: InputRequest;
  changes?: FileChange[];
  code_hidden?: boolean;
  outputs_hidden?: boolean;
  status: ItemStatus;
  reason?: string;
  message?: string;
  created_at: string;
  updated_at: string;
}

export interface SessionDetail extends Session {
  items: Item[];
}

export interface SessionList {
  sessions: Session[];
  next?: string;
}

export interface CreateSession {
  title?: string;
  model?: string;
  template?: string;
}

export interface UpdateSession {
  title?: string;
  pinned?: boolean;
  model?: string;
}

export interface CreateItem {
  kind: "cell" | "note";
  after?: string;
  code?: string;
  text?: string;
}

export interface UpdateItem {
  code?: string;
  text?: string;
  code_hidden?: boolean;
  outputs_hidden?: boolean;
  kind?: "cell" | "note";
  after?: string;
}

export interface RunItems {
  items: string[];
  code?: Record<string, string>;
}

export interface SendMessage {
  text: string;
  files?: string[];
  model?: string;
  replaces?: string;
}

export interface Variable {
  name: string;
  type: string;
  shape?: string;
  size_bytes?: number;
  preview: string;
  table?: boolean;
}

export interface VariableList {
  variables: Variable[];
  truncated?: boolean;
}

export interface TableColumn {
  name: string;
  dtype: string;
  nulls: number | null;
}

export interface Table {
  id?: string;
  columns: TableColumn[];
  index?: Json[];
  rows: Json[][];
  offset: number;
  total_rows: number;
  total_columns: number;
  sheets?: string[];
}

export interface Model {
  name: string;
  title: string;
  default: boolean;
  vision: boolean;
  context_tokens: number;
  source: string;
}

export interface ModelList {
  models: Model[];
  hint?: string;
}

export interface Usage {
  memory_bytes: number;
  memory_limit_bytes: number;
  cpu_nanos: number;
  disk_bytes: number;
  disk_limit_bytes: number;
  processes: number;
  at: string;
}

export interface File {
  name: string;
  path: string;
  escaped_path?: string;
  type: "file" | "directory" | "symlink" | "other";
  size_bytes: number;
  mode: string;
  modified_at: string;
  target?: string;
  /** Of a session's files, false: it is lost when the sandbox ends. */
  kept?: boolean;
  /** Of a session's top folders: which files are not kept, as a sentence for people. */
  notice?: string;
  entries?: File[];
  truncated?: boolean;
}

/** Content of Jupyter's complete_reply. */
export interface Completions {
  matches: string[];
  cursor_start: number;
  cursor_end: number;
  metadata?: Record<string, Json>;
  status?: string;
}

/** Content of Jupyter's inspect_reply. */
export interface Inspection {
  found: boolean;
  data: Record<string, Json>;
  metadata?: Record<string, Json>;
}

/** Content of Jupyter's is_complete_reply. */
export interface IsComplete {
  status: "complete" | "incomplete" | "invalid" | "unknown";
  indent?: string;
}

/** One event of a session's log. */
export interface SessionEvent {
  seq: number;
  time: string;
  type: string;
  item_id?: string;
  execution_id?: string;
  data: unknown;
}

/** Which limit refused a request. */
export interface LimitReached {
  limit: string;
  scope: "user" | "organisation";
  used: number;
  most: number;
  unit?: "number" | "bytes" | "milliseconds";
  frees_at?: string;
}

/** RFC 9457 problem details. */
export interface Problem {
  type: string;
  title: string;
  status: number;
  detail?: string;
  code: string;
  hint?: string;
  reason?: string;
  instance?: string;
  request_id?: string;
  limit?: LimitReached;
  errors?: { location?: string; message: string }[];
}
