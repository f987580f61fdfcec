package accounts

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/store"
)

// InUse refuses to delete an organisation that has something.
func InUse(what ...string) error {
	list := strings.Join(what[:len(what)-1], ", ")
	if list != "" {
		list += " and "
	}
	return errdefs.New(errdefs.ErrConflict, "organisation-in-use", "The organisation still has %s.", list+what[len(what)-1]).
		WithHint("Its owners and admins can delete what its users made; then take the users out, and delete it again.")
}

// DeleteOrg deletes an organisation that has no users, with the keys and
// sign-ins that there were in it. The audit of it stays as long as any.
func (s *Service) DeleteOrg(ctx context.Context, id string) error {
	err := s.store.Transact(ctx, func(t *store.Tx) error {
		if err := lockRights(t); err != nil {
			return err
		}
		var members int64
		if err := t.One(`SELECT count(*) FROM memberships WHERE org_id=?`, []any{id}, &members); err != nil {
			return err
		}
		if members > 0 {
			return InUse("users")
		}
		for _, query := range []string{`DELETE FROM api_keys WHERE org_id=?`, `DELETE FROM logins WHERE org_id=?`} {
			if _, err := t.Exec(query, id); err != nil {
				return err
			}
		}
		n, err := t.Exec(`DELETE FROM organisations WHERE id=?`, id)
		if err == nil && n == 0 {
			err = errNoOrg(id)
		}
		return err
	})
	if err == nil {
		s.changed(ctx)
	}
	return err
}

// Names says what people call owners.
type Names struct {
	Emails        map[string]string // by users
	Organisations map[string]string // names, by organisations
}

// namesAtOnce is how many one query asks for.
const namesAtOnce = 500

// NamesOf gives the addresses of the users among owners, and the names of the
// organisations. Those that are no more have none.
func (s *Service) NamesOf(ctx context.Context, owners []identity.Owner) (Names, error) {
	users, orgs := map[string]string{}, map[string]string{}
	for _, o := range owners {
		users[o.User], orgs[o.Org] = "", ""
	}
	fill := func(names map[string]string, query string) error {
		delete(names, "")
		ids := make([]any, 0, len(names))
		for id := range names {
			ids = append(ids, id)
		}
		for some := range slices.Chunk(ids, namesAtOnce) {
			_, err := store.Select(ctx, s.store, func(scan store.Scan) (struct{}, error) {
				var id, name string
				err := scan(&id, &name)
				names[id] = name
				return struct{}{}, err
			}, query+` WHERE id IN (?`+strings.Repeat(",?", len(some)-1)+`)`, some...)
			if err != nil {
				return err
			}
		}
		return nil
	}
	err := errors.Join(fill(users, `SELECT id, email FROM users`), fill(orgs, `SELECT id, name FROM organisations`))
	return Names{users, orgs}, err
}
