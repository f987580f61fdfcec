package v1

import (
	"encoding/json"
	"time"
)

// Session is what a person or program comes back to: a conversation with
// messages and cells in one ordered list, a sandbox, files.
type Session struct {
	ID        string          `json:"id" example:"ses_7m2q4v6xz3b5d7f9h2j4kmabcd"`
	Title     string          `json:"title" doc:"Given by a person, or taken from the first message; empty: none yet"`
	Pinned    bool            `json:"pinned"`
	Model     string          `json:"model" doc:"Name of the model that answers, see GET /v1/models; empty: none, a notebook"`
	Template  string          `json:"template" doc:"What its sandboxes are made from"`
	Sandbox   SessionSandbox  `json:"sandbox"`
	Turn      *Turn           `json:"turn,omitempty" doc:"Set while the model works"`
	LastTurn  *Turn           `json:"last_turn,omitempty" doc:"How the turn before ended; absent while one runs"`
	Queue     []QueuedMessage `json:"queue" doc:"Messages that wait for the turn to end, in order"`
	Usage     TokenUsage      `json:"usage" doc:"Tokens of all turns together"`
	ItemCount int             `json:"item_count" doc:"Messages and cells in the list"`
	LastSeq   int64           `json:"last_seq" doc:"Number of its last event"`
	CreatedAt time.Time       `json:"created_at"`
	UpdatedAt time.Time       `json:"updated_at" doc:"Last change of what it holds"`
	DeletedAt *time.Time      `json:"deleted_at,omitempty" doc:"Deleted, and restorable until the server forgets it"`
}

// SessionSandbox is the sandbox of a session as people should see it.
type SessionSandbox struct {
	State     string     `json:"state" enum:"none,starting,ready,busy,pausing,paused,resuming,lost" doc:"none: not needed yet, or freed after rest; busy: a kernel runs code; paused: asleep on disk, and woken by the next thing that needs it"`
	ID        string     `json:"id,omitempty" doc:"The sandbox, while there is one"`
	KernelID  string     `json:"kernel_id,omitempty" doc:"The kernel that runs the cells"`
	Reason    string     `json:"reason,omitempty" doc:"Why it is lost or none" example:"out_of_memory"`
	Message   string     `json:"message,omitempty" doc:"The same as a sentence for people, with what to do"`
	Limits    Limits     `json:"limits,omitzero"`
	StartedAt *time.Time `json:"started_at,omitempty"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
}

// Turn is the model's work on one message: text, cells and other tools, as
// many rounds as it takes.
type Turn struct {
	ID         string     `json:"id" example:"trn_2n3p5r7t4vxz6bdfhj2kmqabcf"`
	MessageID  string     `json:"message_id" doc:"The item it answers"`
	Model      string     `json:"model"`
	Status     string     `json:"status" enum:"running,ok,stopped,error,limit,cut" doc:"limit: too many rounds; cut: the server ended in the middle"`
	Code       string     `json:"code,omitempty" doc:"Stable name of a failure" example:"model-rate-limited"`
	Message    string     `json:"message,omitempty" doc:"A sentence for people: what happened and what to do"`
	Round      int        `json:"round" doc:"Calls of the model so far"`
	Usage      TokenUsage `json:"usage"`
	StartedAt  time.Time  `json:"started_at"`
	FinishedAt *time.Time `json:"finished_at,omitempty"`
}

// TokenUsage counts tokens as the model's server reported them.
type TokenUsage struct {
	InputTokens       int64 `json:"input_tokens"`
	CachedInputTokens int64 `json:"cached_input_tokens,omitempty"`
	OutputTokens      int64 `json:"output_tokens"`
}

// QueuedMessage is a message that waits for the turn before it.
type QueuedMessage struct {
	ID        string    `json:"id" example:"itm_5t7v2x4z6b8d3f5h7j2kmnabcd"`
	Text      string    `json:"text"`
	Files     []string  `json:"files,omitempty"`
	CreatedAt time.Time `json:"created_at"`
}

// Item is one entry of a session's list. Which fields are set follows from
// Kind:
//
//	user       Text, Files: what a person said to the model
//	assistant  Text, Reasoning: what the model said
//	cell       Code, Outputs and what belongs to the run; made by a person, or by the model (TurnID)
//	note       Text: Markdown a person wrote for themselves
//	tool       Tool: any other call of the model
type Item struct {
	ID        string    `json:"id" example:"itm_5t7v2x4z6b8d3f5h7j2kmnabcd"`
	Kind      string    `json:"kind" enum:"user,assistant,cell,note,tool"`
	TurnID    string    `json:"turn_id,omitempty" doc:"The turn that made it; empty: a person"`
	Siblings  []string  `json:"siblings,omitempty" doc:"This item and its alternatives (edited or regenerated), oldest first; absent when there are none"`
	Text      string    `json:"text,omitempty" doc:"Markdown"`
	Reasoning string    `json:"reasoning,omitempty" doc:"What the model thought aloud"`
	Files     []string  `json:"files,omitempty" doc:"Paths in the sandbox that came with the message"`
	Model     string    `json:"model,omitempty"`
	Tool      *ToolCall `json:"tool,omitempty" doc:"Of items that the model called for"`

	Code           string        `json:"code,omitempty" doc:"Python"`
	Edited         bool          `json:"edited,omitempty" doc:"The code is not what ran last"`
	Outputs        []Output      `json:"outputs,omitempty" doc:"nbformat 4.5 outputs"`
	ExecutionID    string        `json:"execution_id,omitempty" doc:"The last run"`
	ExecutionCount int           `json:"execution_count,omitempty"`
	StartedAt      *time.Time    `json:"started_at,omitempty"`
	FinishedAt     *time.Time    `json:"finished_at,omitempty"`
	DurationMS     float64       `json:"duration_ms,omitempty"`
	OutputBytes    int64         `json:"output_bytes,omitempty"`
	DroppedBytes   int64         `json:"dropped_bytes,omitempty"`
	OutputFile     string        `json:"output_file,omitempty" doc:"File in the sandbox with the whole output, when some was left out"`
	Input          *InputRequest `json:"input,omitempty" doc:"Set while the code waits in input()"`
	Changes        []FileChange  `json:"changes,omitempty" doc:"Files that the last run made or changed"`
	CodeHidden     bool          `json:"code_hidden,omitempty"`
	OutputsHidden  bool          `json:"outputs_hidden,omitempty"`

	Status    string    `json:"status" enum:"idle,writing,queued,running,ok,error,interrupted,timeout,killed,aborted,stopped,cut" doc:"idle: never ran, or nothing to run; writing: the model writes it; stopped: by a person while the model wrote; cut: the server ended in the middle; the rest as for executions"`
	Reason    string    `json:"reason,omitempty" doc:"As of executions" example:"out_of_memory"`
	Message   string    `json:"message,omitempty" doc:"A sentence for people: what happened and what to do"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// ToolCall is a call the model made, and its answer.
type ToolCall struct {
	ID        string          `json:"id" doc:"The model's own identifier of the call"`
	Name      string          `json:"name" example:"get_current_weather"`
	Arguments json.RawMessage `json:"arguments,omitempty" doc:"JSON object, once complete"`
	Result    json.RawMessage `json:"result,omitempty" doc:"Any JSON; of python_interpreter absent: the item's outputs are the result"`
	Error     string          `json:"error,omitempty"`
}

// FileChange is what an execution did to a file.
type FileChange struct {
	Path      string `json:"path" example:"/workspace/plot.png"`
	Change    string `json:"change" enum:"created,modified,deleted"`
	SizeBytes int64  `json:"size_bytes,omitempty"`
}

// SessionDetail is a session with its list, as one consistent state: events
// after Session.LastSeq continue it.
type SessionDetail struct {
	Session
	Items []Item `json:"items" doc:"In order"`
}

// SessionList is a page of sessions: pinned ones first, then the latest.
type SessionList struct {
	Sessions []Session `json:"sessions"`
	Next     string    `json:"next,omitempty" doc:"Cursor of the next page"`
}

// CreateSession asks for a session. Every field may be left out.
type CreateSession struct {
	Title    string  `json:"title,omitempty" maxLength:"200"`
	Model    *string `json:"model,omitempty" doc:"Default: the installation's default model, if it has one; \"\" for a notebook"`
	Template string  `json:"template,omitempty" maxLength:"63"`
}

// UpdateSession changes the fields that are there.
type UpdateSession struct {
	Title  *string `json:"title,omitempty" maxLength:"200"`
	Pinned *bool   `json:"pinned,omitempty"`
	Model  *string `json:"model,omitempty"`
}

// CreateItem asks for a cell or a note.
type CreateItem struct {
	Kind  string  `json:"kind" enum:"cell,note"`
	After *string `json:"after,omitempty" doc:"The item it comes behind; \"\": the very first; absent: the end"`
	Code  string  `json:"code,omitempty"`
	Text  string  `json:"text,omitempty"`
}

// UpdateItem changes the fields that are there.
type UpdateItem struct {
	Code          *string `json:"code,omitempty" doc:"Of a cell"`
	Text          *string `json:"text,omitempty" doc:"Of a note"`
	CodeHidden    *bool   `json:"code_hidden,omitempty"`
	OutputsHidden *bool   `json:"outputs_hidden,omitempty"`
	Kind          *string `json:"kind,omitempty" enum:"cell,note" doc:"Turns a cell into a note and back; code and text change places"`
	After         *string `json:"after,omitempty" doc:"Moves it behind this item; \"\": to the very beginning"`
}

// RunItems asks for cells to be run, in this order; after one that raises, the
// rest is aborted.
type RunItems struct {
	Items []string          `json:"items" minItems:"1" maxItems:"1000"`
	Code  map[string]string `json:"code,omitempty" doc:"Item → code to save first, so that what runs is what the person sees"`
}

// SendMessage asks the model.
type SendMessage struct {
	Text     string   `json:"text" maxLength:"1048576"`
	Files    []string `json:"files,omitempty" maxItems:"100" doc:"Paths in the sandbox that the message is about"`
	Model    string   `json:"model,omitempty" doc:"Also becomes the session's model"`
	Replaces string   `json:"replaces,omitempty" doc:"A message of the person to edit: this one and its answers become another branch"`
}

// Regenerate asks the model again.
type Regenerate struct {
	Model string `json:"model,omitempty" doc:"Also becomes the session's model"`
}

// SelectItem chooses an alternative; what follows it is shown.
type SelectItem struct {
	Item string `json:"item" doc:"One of an item's siblings"`
}

// Variable is one name that the person's code defined.
type Variable struct {
	Name      string `json:"name"`
	Type      string `json:"type" example:"DataFrame"`
	Shape     string `json:"shape,omitempty" doc:"Of arrays, frames and containers" example:"1500 × 7"`
	SizeBytes int64  `json:"size_bytes,omitempty" doc:"Of what knows its size cheaply"`
	Preview   string `json:"preview" doc:"One line"`
	Table     bool   `json:"table,omitempty" doc:"Can be paged as a table"`
}

// VariableList is the variables of the session's kernel, sorted by name.
type VariableList struct {
	Variables []Variable `json:"variables"`
	Truncated bool       `json:"truncated,omitempty"`
}

// Table is one page of a data frame or a file with rows and columns. The shape
// is that of application/vnd.caesarion.table+json, whose rows begin at 0.
type Table struct {
	ID           string              `json:"id,omitempty" doc:"Of a frame the kernel still holds: names it for further pages"`
	Columns      []TableColumn       `json:"columns"`
	Index        []json.RawMessage   `json:"index,omitempty" doc:"Labels of the rows, unless they are just numbers from 0"`
	Rows         [][]json.RawMessage `json:"rows" doc:"Numbers, booleans, null or text"`
	Offset       int64               `json:"offset"`
	TotalRows    int64               `json:"total_rows" doc:"-1: not counted"`
	TotalColumns int64               `json:"total_columns"`
	Sheets       []string            `json:"sheets,omitempty" doc:"Of a workbook"`
}

// TableColumn is one column of a Table.
type TableColumn struct {
	Name  string `json:"name"`
	Type  string `json:"dtype" example:"float64"`
	Nulls *int64 `json:"nulls" doc:"null: not counted"`
}

// Model is a language model that can answer.
type Model struct {
	Name          string `json:"name" doc:"What sessions name it by" example:"gpt-4.1"`
	Title         string `json:"title" doc:"For people"`
	Default       bool   `json:"default"`
	Vision        bool   `json:"vision" doc:"It sees images"`
	ContextTokens int64  `json:"context_tokens"`
	Source        string `json:"source" doc:"Where it came from: config, OPENAI_API_KEY, or the local server that was found" example:"config"`
}

// ModelList is the models of this installation.
type ModelList struct {
	Models []Model `json:"models"`
	Hint   string  `json:"hint,omitempty" doc:"With no model: how to add one"`
}

// Login trades the token for a cookie, which a page's scripts can't read.
type Login struct {
	Token    string `json:"token,omitempty" maxLength:"1000" doc:"The server's token, where there are no accounts"`
	Email    string `json:"email,omitempty" maxLength:"254" doc:"Where there are accounts"`
	Password string `json:"password,omitempty" maxLength:"1000"`
}
