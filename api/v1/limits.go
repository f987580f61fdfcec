package v1

import "time"

// Allowance says how much somebody uses, and of how much.
type Allowance struct {
	User         SubjectUsage  `json:"user"`
	Organisation *SubjectUsage `json:"organisation,omitempty" doc:"All of its users together, oneself too; absent: one acts in none"`
}

// SubjectUsage is what a user, or an organisation, uses.
type SubjectUsage struct {
	Scope          string        `json:"scope" enum:"user,organisation"`
	UserID         string        `json:"user_id,omitempty" doc:"Absent: an organisation, or the only user of a server"`
	OrganisationID string        `json:"organisation_id,omitempty"`
	Limits         []LimitFigure `json:"limits" doc:"All there are, also those without a bound"`
	UploadBytes    *int64        `json:"upload_bytes,omitempty" doc:"Largest file that may be uploaded; absent: no limit"`
	UploadTypes    []string      `json:"upload_types,omitempty" doc:"Extensions of files that may be uploaded; absent: all"`
}

// LimitFigure is how much of one limit is used.
type LimitFigure struct {
	Limit   string     `json:"limit" example:"executions_per_minute" enum:"sandboxes,memory,disk,creates_per_minute,executions_per_minute,cpu_per_day,egress_per_day,model_tokens_per_day"`
	Unit    string     `json:"unit" enum:"number,bytes,milliseconds"`
	Used    int64      `json:"used"`
	Most    *int64     `json:"most,omitempty" doc:"Absent: no limit"`
	FreesAt *time.Time `json:"frees_at,omitempty" doc:"When it begins anew; absent: when something is given back"`
}

// UsageList is what everybody uses who used or has something today.
type UsageList struct {
	Usage []SubjectUsage `json:"usage"`
}

// LimitReached says which limit refused a request.
type LimitReached struct {
	Limit   string     `json:"limit" example:"executions_per_minute"`
	Scope   string     `json:"scope" enum:"user,organisation" doc:"Whose limit it is"`
	Used    int64      `json:"used"`
	Most    int64      `json:"most"`
	Unit    string     `json:"unit,omitempty" enum:"number,bytes,milliseconds"`
	FreesAt *time.Time `json:"frees_at,omitempty" doc:"When there is more; absent: when something is given back, or never"`
}
