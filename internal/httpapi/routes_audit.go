package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/identity/accounts"
)

const tagAdmin = "Administration"

type auditInput struct {
	Org    string `query:"organisation" maxLength:"64" doc:"Of one organisation, for operators; absent: one's own; *: all"`
	User   string `query:"user" maxLength:"64" doc:"Identifier of a user"`
	Object string `query:"object" maxLength:"200" doc:"Identifier of an object"`
	Action string `query:"action" maxLength:"64"`
	Before int64  `query:"before" minimum:"0" doc:"\"next\" of the page before"`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

func (a *API) auditRoutes() {
	register(a, huma.Operation{
		OperationID: "get-audit", Method: http.MethodGet, Path: "/v1/audit", Tags: []string{tagAdmin},
		Summary:     "Who did what, the latest first",
		Description: "Who changed, ran, signed in or was refused, when and from where; never what was in it. An operator sees with organisation=* also failed sign-ins, which belong to none.",
	}, func(ctx context.Context, in *auditInput) (*answer[v1.AuditList], error) {
		svc, err := a.accountsOn()
		if err != nil {
			return nil, err
		}
		org := ""
		if who := identity.From(ctx); !who.Operator || in.Org != "*" && (in.Org != "" || who.Org != "") {
			if org, err = organisation(ctx, in.Org); err != nil {
				return nil, err
			}
		}
		entries, err := svc.Audit(ctx, accounts.AuditQuery{Org: org, User: in.User, Object: in.Object, Action: in.Action, Before: in.Before, Limit: in.Limit})
		list := v1.AuditList{Entries: []v1.AuditEntry{}}
		for _, e := range entries {
			list.Entries = append(list.Entries, v1.AuditEntry{
				N: e.N, At: e.At, UserID: e.User, OrganisationID: e.Org, Name: e.Name, Via: e.Via, Action: e.Action,
				Object: e.Object, Status: e.Status, Code: e.Code, Address: e.Address, RequestID: e.Request,
			})
		}
		if len(entries) == in.Limit {
			list.Next = entries[len(entries)-1].N
		}
		return &answer[v1.AuditList]{list}, err
	})
}
