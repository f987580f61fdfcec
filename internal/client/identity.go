package client

import (
	"context"
	"net/http"
	"net/url"

	v1 "github.com/caesarion/caesarion/api/v1"
)

// Me says who calls.
func (c *Client) Me(ctx context.Context) (v1.Me, error) {
	var me v1.Me
	return me, c.call(ctx, http.MethodGet, segments("me"), nil, nil, &me)
}

// Users lists the users of an organisation; "": one's own, or all of them for
// who is in none; "*": all of them.
func (c *Client) Users(ctx context.Context, organisation string) ([]v1.User, error) {
	var list v1.UserList
	return list.Users, c.call(ctx, http.MethodGet, segments("users"), inOrganisation(organisation), nil, &list)
}

func inOrganisation(id string) url.Values {
	if id == "" {
		return nil
	}
	return url.Values{"organisation": {id}}
}

// CreateUser makes a user.
func (c *Client) CreateUser(ctx context.Context, in v1.CreateUser) (v1.User, error) {
	var u v1.User
	return u, c.call(ctx, http.MethodPost, segments("users"), nil, in, &u)
}

// UpdateUser changes a user, who is named by id or address.
func (c *Client) UpdateUser(ctx context.Context, user string, in v1.UpdateUser) (v1.User, error) {
	var u v1.User
	return u, c.call(ctx, http.MethodPatch, segments("users", user), nil, in, &u)
}

// RemoveUser takes a user out of an organisation; "": one's own.
func (c *Client) RemoveUser(ctx context.Context, user, organisation string) error {
	return c.call(ctx, http.MethodDelete, segments("users", user), inOrganisation(organisation), nil, nil)
}

// UserLink makes a link by which a user sets a password.
func (c *Client) UserLink(ctx context.Context, user string) (v1.UserLink, error) {
	var link v1.UserLink
	return link, c.call(ctx, http.MethodPost, segments("users", user, "link"), nil, nil, &link)
}

// Organisations lists the organisations, for operators.
func (c *Client) Organisations(ctx context.Context) ([]v1.Organisation, error) {
	var list v1.OrganisationList
	return list.Organisations, c.call(ctx, http.MethodGet, segments("organisations"), nil, nil, &list)
}

// CreateOrganisation makes an organisation.
func (c *Client) CreateOrganisation(ctx context.Context, name string) (v1.Organisation, error) {
	var o v1.Organisation
	return o, c.call(ctx, http.MethodPost, segments("organisations"), nil, v1.CreateOrganisation{Name: name}, &o)
}

// Keys lists one's API keys, or those of all that one may see.
func (c *Client) Keys(ctx context.Context, all bool) (v1.KeyList, error) {
	var list v1.KeyList
	query := url.Values{}
	if all {
		query.Set("all", "true")
	}
	return list, c.call(ctx, http.MethodGet, segments("keys"), query, nil, &list)
}

// CreateKey makes an API key.
func (c *Client) CreateKey(ctx context.Context, in v1.CreateKey) (v1.NewKey, error) {
	var k v1.NewKey
	return k, c.call(ctx, http.MethodPost, segments("keys"), nil, in, &k)
}

// RotateKey makes a key in the place of another.
func (c *Client) RotateKey(ctx context.Context, id string, in v1.RotateKey) (v1.NewKey, error) {
	var k v1.NewKey
	return k, c.call(ctx, http.MethodPost, segments("keys", id, "rotate"), nil, in, &k)
}

// RevokeKey ends an API key.
func (c *Client) RevokeKey(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, segments("keys", id), nil, nil, nil)
}
