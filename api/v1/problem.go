package v1

// Problem is a failure: RFC 9457 problem details, application/problem+json.
type Problem struct {
	Type      string         `json:"type" doc:"URI that ends in the code" example:"urn:caesarion:problem:sandbox-not-found"`
	Title     string         `json:"title" doc:"What kind of failure it is" example:"Not Found"`
	Status    int            `json:"status" doc:"The HTTP status" example:"404"`
	Detail    string         `json:"detail,omitempty" doc:"What happened"`
	Code      string         `json:"code" doc:"Stable name of the failure, for programs" example:"sandbox-not-found"`
	Hint      string         `json:"hint,omitempty" doc:"What to do about it"`
	Reason    string         `json:"reason,omitempty" doc:"Why a sandbox is gone, when known"`
	Limit     *LimitReached  `json:"limit,omitempty" doc:"The limit that refused this"`
	Instance  string         `json:"instance,omitempty" doc:"Path that was asked for"`
	RequestID string         `json:"request_id,omitempty" doc:"Stands in the server's log too"`
	Errors    []ProblemField `json:"errors,omitempty" doc:"What is wrong with which field"`
}

// ProblemField says what is wrong with one field of a request.
type ProblemField struct {
	Location string `json:"location,omitempty" example:"body.timeout_ms"`
	Message  string `json:"message"`
}

// Error makes a Problem an error for clients.
func (p *Problem) Error() string {
	s := p.Code
	if p.Detail != "" {
		s = p.Detail
	}
	if p.Hint != "" {
		s += " (" + p.Hint + ")"
	}
	return s
}
