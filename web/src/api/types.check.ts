// Compared by the compiler: types.ts says the same as what is generated from
// api/openapi.yaml. It has its own words only where it knows more (JSON values,
// lists that are never null).
import type { components } from "./openapi";
import type * as here from "./types";

type There = components["schemas"];

type Same<Mine, Theirs> = [keyof Mine] extends [keyof Theirs]
  ? [keyof Theirs] extends [keyof Mine]
    ? Mine extends Theirs
      ? true
      : "a field has another type"
    : ["not in types.ts", Exclude<keyof Theirs, keyof Mine>]
  : ["unknown to the server", Exclude<keyof Mine, keyof Theirs>];

/** What must be the same; a line that is not `true` does not compile. */
export const same: {
  Session: Same<here.Session, There["Session"]>;
  SessionDetail: Same<here.SessionDetail, There["SessionDetail"]>;
  SessionList: Same<here.SessionList, There["SessionList"]>;
  SessionSandbox: Same<here.SessionSandbox, There["SessionSandbox"]>;
  Turn: Same<here.Turn, There["Turn"]>;
  TokenUsage: Same<here.TokenUsage, There["TokenUsage"]>;
  QueuedMessage: Same<here.QueuedMessage, There["QueuedMessage"]>;
  Item: Same<here.Item, There["Item"]>;
  Output: Same<here.Output, There["Output"]>;
  ToolCall: Same<here.ToolCall, There["ToolCall"]>;
  FileChange: Same<here.FileChange, There["FileChange"]>;
  InputRequest: Same<here.InputRequest, There["InputRequest"]>;
  CreateSession: Same<here.CreateSession, There["CreateSession"]>;
  UpdateSession: Same<here.UpdateSession, There["UpdateSession"]>;
  CreateItem: Same<here.CreateItem, There["CreateItem"]>;
  UpdateItem: Same<here.UpdateItem, There["UpdateItem"]>;
  RunItems: Same<here.RunItems, There["RunItems"]>;
  Model: Same<here.Model, There["Model"]>;
  ModelList: Same<here.ModelList, There["ModelList"]>;
  Usage: Same<here.Usage, There["Usage"]>;
  File: Same<here.File, There["File"]>;
  SendMessage: Same<here.SendMessage, There["SendMessage"]>;
  Variable: Same<here.Variable, There["Variable"]>;
  VariableList: Same<here.VariableList, There["VariableList"]>;
  Table: Same<here.Table, There["Table"]>;
  TableColumn: Same<here.TableColumn, There["TableColumn"]>;
  Problem: Same<here.Problem, There["Problem"]>;
} = {
  Session: true,
  SessionDetail: true,
  SessionList: true,
  SessionSandbox: true,
  Turn: true,
  TokenUsage: true,
  QueuedMessage: true,
  Item: true,
  Output: true,
  ToolCall: true,
  FileChange: true,
  InputRequest: true,
  CreateSession: true,
  UpdateSession: true,
  CreateItem: true,
  UpdateItem: true,
  RunItems: true,
  Model: true,
  ModelList: true,
  Usage: true,
  File: true,
  SendMessage: true,
  Variable: true,
  VariableList: true,
  Table: true,
  TableColumn: true,
  Problem: true,
};
