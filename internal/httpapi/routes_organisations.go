package httpapi

import (
	"context"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/identity/accounts"
	"github.com/caesarion/caesarion/internal/session"
)

// OrganisationPath is the part of an input that names an organisation.
type OrganisationPath struct {
	OrganisationID string `path:"organisation_id" maxLength:"64" doc:"Identifier of the organisation" example:"org_4kq2m7v6xqz5wd3h"`
}

func (a *API) organisationRoutes(tags []string) {
	register(a, huma.Operation{
		OperationID: "list-organisations", Method: http.MethodGet, Path: "/v1/organisations", Tags: tags, Summary: "List the organisations, for operators",
	}, func(ctx context.Context, _ *struct{}) (*answer[v1.OrganisationList], error) {
		svc, err := a.accountsOn()
		if err != nil {
			return nil, err
		}
		orgs, err := svc.Orgs(ctx)
		list := v1.OrganisationList{Organisations: []v1.Organisation{}}
		for _, o := range orgs {
			list.Organisations = append(list.Organisations, v1.Organisation(o))
		}
		return &answer[v1.OrganisationList]{list}, err
	})
	register(a, huma.Operation{
		OperationID: "create-organisation", Method: http.MethodPost, Path: "/v1/organisations", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Make an organisation, for operators", Description: "Failures: 400 `name-invalid`; 409 `organisation-exists`.",
	}, func(ctx context.Context, in *struct{ Body v1.CreateOrganisation }) (*created[v1.Organisation], error) {
		svc, err := a.accountsOn()
		if err != nil {
			return nil, err
		}
		o, err := svc.CreateOrg(ctx, in.Body.Name)
		if err != nil {
			return nil, err
		}
		return &created[v1.Organisation]{"/v1/organisations/" + o.ID, v1.Organisation(o)}, nil
	})
	register(a, huma.Operation{
		OperationID: "delete-organisation", Method: http.MethodDelete, Path: "/v1/organisations/{organisation_id}", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Delete an organisation that has nothing, for operators", Description: "Keys that there were in it are no longer good; its audit stays. Failures: 404 `organisation-not-found`; 409 `organisation-in-use` while it has users, sandboxes, snapshots or sessions (those in the bin go by themselves).",
	}, func(ctx context.Context, in *OrganisationPath) (*struct{}, error) {
		svc, err := a.accountsOn()
		if err != nil {
			return nil, err
		}
		if err := a.unused(ctx, svc, in.OrganisationID); err != nil {
			return nil, err
		}
		return nil, svc.DeleteOrg(ctx, in.OrganisationID)
	})
}

// unused refuses if an organisation has something.
func (a *API) unused(ctx context.Context, svc *accounts.Service, org string) error {
	var has []string
	its := func(o identity.Owner) bool { return o.Org == org }
	users, err := svc.Users(ctx, org)
	if err != nil {
		return err
	}
	if len(users) > 0 {
		has = append(has, "users")
	}
	views, err := a.fleet.Everywhere(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(views, func(v fleet.View) bool { return its(v.Owner) }) {
		has = append(has, "sandboxes")
	}
	snapshots, err := a.fleet.SnapshotsFor(ctx, its)
	if err != nil {
		return err
	}
	if len(snapshots) > 0 {
		has = append(has, "snapshots")
	}
	if a.opts.Sessions != nil {
		list, err := a.opts.Sessions.List(ctx, session.ListRequest{Limit: 1, Filter: &identity.Filter{Org: org}})
		if err != nil {
			return err
		}
		if len(list.Sessions) > 0 {
			has = append(has, "sessions")
		}
	}
	if len(has) > 0 {
		return accounts.InUse(has...)
	}
	return nil
}
