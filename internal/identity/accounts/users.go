package accounts

import (
	"context"
	"database/sql"
	"errors"
	"net/mail"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/store"
)

// User is somebody with an account.
type User struct {
	ID         string
	Email      string
	Name       string
	Operator   bool
	Password   bool // there is one
	Disabled   bool
	CreatedAt  time.Time
	SignedInAt time.Time // zero: never
	Roles      []Membership
}

// Membership is a user's place in an organisation.
type Membership struct {
	Org, OrgName string
	Role         identity.Role
}

// Organisation is a group of users that shares nothing with others.
type Organisation struct {
	ID, Name  string
	Users     int64
	CreatedAt time.Time
}

func errNoUser(id string) error {
	return errdefs.New(errdefs.ErrNotFound, "user-not-found", "There is no user %.80q.", id).WithHint("GET /v1/users lists them.")
}

func errNoOrg(id string) error {
	return errdefs.New(errdefs.ErrNotFound, "organisation-not-found", "There is no organisation %.80q.", id).WithHint("GET /v1/organisations lists them.")
}

const maxEmail = 254 // bytes

// lower is of ASCII only: to Unicode a Kelvin sign in lower case is a k, and so
// one address would become another's.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}

// cleanEmail gives an address as it is kept: in ASCII, so that no two look alike.
func cleanEmail(email string) (string, error) {
	email = lower(strings.TrimSpace(email))
	a, err := mail.ParseAddress(email)
	foreign := strings.ContainsFunc(email, func(r rune) bool { return r <= ' ' || r > '~' })
	if err != nil || a.Address != email || len(email) > maxEmail || foreign {
		return "", errInvalid("email-invalid", "%.80q is no e-mail address.", email).WithHint("Write it as name@example.org, in ASCII.")
	}
	return email, nil
}

// Address gives an address as it is kept; "" if it is none. What people type
// where an address belongs may be a password.
func Address(text string) string {
	email, err := cleanEmail(text)
	if err != nil {
		return ""
	}
	return email
}

// unseen tells characters that nobody sees and that change what is around them:
// of control, of direction, and without a width.
func unseen(r rune) bool {
	return unicode.IsControl(r) || r != '\u200d' && unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r)
}

const maxName = 100 // characters

func cleanName(what, name string) (string, error) {
	name = strings.Join(strings.Fields(name), " ")
	if name == "" || utf8.RuneCountInString(name) > maxName || !utf8.ValidString(name) || strings.ContainsFunc(name, unseen) {
		return "", errInvalid("name-invalid", "The name of the %s can't be used.", what).WithHint("It has 1 to %d characters that can be seen.", maxName)
	}
	return name, nil
}

// cutName gives of a name that others chose what can be kept.
func cutName(name string) string {
	name = strings.Map(func(r rune) rune {
		if unseen(r) || r == utf8.RuneError {
			return ' '
		}
		return r
	}, name)
	runes := []rune(strings.Join(strings.Fields(name), " "))
	return strings.TrimSpace(string(runes[:min(len(runes), maxName)]))
}

// CreateOrg makes an organisation.
func (s *Service) CreateOrg(ctx context.Context, name string) (Organisation, error) {
	name, err := cleanName("organisation", name)
	if err != nil {
		return Organisation{}, err
	}
	org := Organisation{ID: newID("org_"), Name: name, CreatedAt: s.now()}
	return org, s.store.Transact(ctx, func(t *store.Tx) error { return insertOrg(t, org) })
}

func insertOrg(t *store.Tx, org Organisation) error {
	n, err := t.Exec(`INSERT INTO organisations (id, name, created_at) VALUES (?,?,?) ON CONFLICT (name) DO NOTHING`, org.ID, org.Name, micros(org.CreatedAt))
	if err == nil && n == 0 {
		return errdefs.New(errdefs.ErrConflict, "organisation-exists", "There is an organisation of that name.").WithHint("Choose another name.")
	}
	return err
}

// Orgs lists the organisations by name.
func (s *Service) Orgs(ctx context.Context) ([]Organisation, error) {
	return store.Select(ctx, s.store, func(scan store.Scan) (o Organisation, err error) {
		var at int64
		err = scan(&o.ID, &o.Name, &at, &o.Users)
		o.CreatedAt = timeOf(at)
		return o, err
	}, `SELECT id, name, created_at, (SELECT count(*) FROM memberships WHERE org_id=organisations.id) FROM organisations ORDER BY name`)
}

// FindOrg finds an organisation by its id or name.
func (s *Service) FindOrg(ctx context.Context, idOrName string) (o Organisation, err error) {
	var at int64
	err = s.store.One(ctx, `SELECT id, name, created_at FROM organisations WHERE id=? OR name=?`, []any{idOrName, idOrName}, &o.ID, &o.Name, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return o, errNoOrg(idOrName)
	}
	o.CreatedAt = timeOf(at)
	return o, err
}

// NewUser is what a user is made of.
type NewUser struct {
	Email, Name string
	Password    string // empty: a link sets one, or a provider signs in
	Org         string
	Role        identity.Role
	Operator    bool
}

// CreateUser makes a user in an organisation.
func (s *Service) CreateUser(ctx context.Context, in NewUser) (User, error) {
	u, kept, err := s.prepare(ctx, in)
	if err != nil {
		return u, err
	}
	err = s.store.Transact(ctx, func(t *store.Tx) error {
		if err := insertUser(t, u, kept); err != nil {
			return err
		}
		return insertMember(t, u.ID, in.Org, in.Role, u.CreatedAt)
	})
	if err != nil {
		return u, err
	}
	return s.User(ctx, u.ID)
}

func (s *Service) prepare(ctx context.Context, in NewUser) (u User, kept string, err error) {
	u = User{ID: newID("usr_"), Operator: in.Operator, CreatedAt: s.now()}
	if u.Email, err = cleanEmail(in.Email); err != nil {
		return u, "", err
	}
	if in.Name == "" {
		in.Name, _, _ = strings.Cut(u.Email, "@")
	}
	if u.Name, err = cleanName("user", in.Name); err != nil {
		return u, "", err
	}
	if in.Password != "" {
		if err = checkPassword(in.Password, u.Email); err == nil {
			kept, err = s.hasher.hash(ctx, in.Password)
		}
	}
	return u, kept, err
}

func insertUser(t *store.Tx, u User, kept string) error {
	n, err := t.Exec(`INSERT INTO users (id, email, name, password, operator, disabled_at, created_at, signed_in_at) VALUES (?,?,?,?,?,0,?,0) ON CONFLICT (email) DO NOTHING`,
		u.ID, u.Email, u.Name, kept, u.Operator, micros(u.CreatedAt))
	if err == nil && n == 0 {
		return errdefs.New(errdefs.ErrConflict, "user-exists", "There is a user with the address %s.", u.Email).WithHint("Use another address, or add that user to the organisation.")
	}
	return err
}

func insertMember(t *store.Tx, user, org string, role identity.Role, at time.Time) error {
	var orgs, members int64
	if err := t.One(`SELECT (SELECT count(*) FROM organisations WHERE id=?), (SELECT count(*) FROM memberships WHERE org_id=?)`, []any{org, org}, &orgs, &members); err != nil {
		return err
	}
	switch {
	case orgs == 0:
		return errNoOrg(org)
	case role == "" && members == 0:
		role = identity.RoleOwner // somebody has to be
	case role == "":
		role = identity.RoleMember
	case !role.Valid():
		return errRole(role)
	}
	_, err := t.Exec(`INSERT INTO memberships (user_id, org_id, role, created_at) VALUES (?,?,?,?) ON CONFLICT (user_id, org_id) DO UPDATE SET role=excluded.role`, user, org, string(role), micros(at))
	return err
}

func errRole(role identity.Role) error {
	return errInvalid("role-unknown", "There is no role %.40q.", string(role)).WithHint("The roles are viewer, member, admin and owner.")
}

const userColumns = `id, email, name, password<>'', operator, disabled_at, created_at, signed_in_at`

func scanUser(scan store.Scan) (u User, err error) {
	var disabled, created, in int64
	err = scan(&u.ID, &u.Email, &u.Name, &u.Password, &u.Operator, &disabled, &created, &in)
	u.Disabled, u.CreatedAt, u.SignedInAt = disabled != 0, timeOf(created), timeOf(in)
	return u, err
}

// User reads one user, by id or address.
func (s *Service) User(ctx context.Context, idOrEmail string) (User, error) {
	u, err := scanUser(func(dest ...any) error {
		return s.store.One(ctx, `SELECT `+userColumns+` FROM users WHERE id=? OR email=?`, []any{idOrEmail, lower(idOrEmail)}, dest...)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return u, errNoUser(idOrEmail)
	}
	if err != nil {
		return u, err
	}
	u.Roles, err = store.Select(ctx, s.store, func(scan store.Scan) (m Membership, err error) {
		var role string
		err = scan(&m.Org, &m.OrgName, &role)
		m.Role = identity.Role(role)
		return m, err
	}, `SELECT o.id, o.name, m.role FROM memberships m JOIN organisations o ON o.id=m.org_id WHERE m.user_id=? ORDER BY m.created_at, o.name`, u.ID)
	return u, err
}

// Users lists the users of an organisation by address; of all with "".
func (s *Service) Users(ctx context.Context, org string) ([]User, error) {
	byID := map[string]*User{}
	list, err := store.Select(ctx, s.store, scanUser, `SELECT `+userColumns+` FROM users WHERE ?='' OR id IN (SELECT user_id FROM memberships WHERE org_id=?) ORDER BY email`, org, org)
	if err != nil {
		return nil, err
	}
	for i := range list {
		byID[list[i].ID] = &list[i]
	}
	_, err = store.Select(ctx, s.store, func(scan store.Scan) (struct{}, error) {
		var user, role string
		var m Membership
		err := scan(&user, &m.Org, &m.OrgName, &role)
		m.Role = identity.Role(role)
		if u := byID[user]; u != nil && (org == "" || m.Org == org) && err == nil {
			u.Roles = append(u.Roles, m)
		}
		return struct{}{}, err
	}, `SELECT m.user_id, o.id, o.name, m.role FROM memberships m JOIN organisations o ON o.id=m.org_id WHERE ?='' OR m.org_id=? ORDER BY m.created_at, o.name`, org, org)
	return list, err
}

// Count gives the number of users.
func (s *Service) Count(ctx context.Context) (n int64, err error) {
	err = s.store.One(ctx, `SELECT count(*) FROM users`, nil, &n)
	return n, err
}

// Change says what of a user becomes another. Nil stays.
type Change struct {
	Name     *string
	Role     *identity.Role // in Org; that of somebody who is not in it puts him there
	Org      string
	Disabled *bool
	Operator *bool
}

// ChangeUser changes a user. What he has of keys and sign-ins has the new
// rights at once.
func (s *Service) ChangeUser(ctx context.Context, id string, c Change) (User, error) {
	name := ""
	if c.Name != nil {
		var err error
		if name, err = cleanName("user", *c.Name); err != nil {
			return User{}, err
		}
	}
	err := s.store.Transact(ctx, func(t *store.Tx) error {
		if err := lockRights(t); err != nil {
			return err
		}
		var n int64
		if err := t.One(`SELECT count(*) FROM users WHERE id=?`, []any{id}, &n); err != nil || n == 0 {
			return errors.Join(err, errNoUser(id))
		}
		if c.Name != nil {
			if _, err := t.Exec(`UPDATE users SET name=? WHERE id=?`, name, id); err != nil {
				return err
			}
		}
		if c.Operator != nil {
			if _, err := t.Exec(`UPDATE users SET operator=? WHERE id=?`, *c.Operator, id); err != nil {
				return err
			}
		}
		if c.Disabled != nil {
			at := int64(0)
			if *c.Disabled {
				at = micros(s.now())
				if _, err := t.Exec(`DELETE FROM logins WHERE user_id=?`, id); err != nil {
					return err
				}
			}
			if _, err := t.Exec(`UPDATE users SET disabled_at=? WHERE id=?`, at, id); err != nil {
				return err
			}
		}
		if c.Role != nil {
			if err := insertMember(t, id, c.Org, *c.Role, s.now()); err != nil {
				return err
			}
		}
		if c.Role == nil && c.Disabled == nil && c.Operator == nil {
			return nil
		}
		if err := dropLinks(t, id); err != nil {
			return err
		}
		return ownersLeft(t, c.Org)
	})
	if err != nil {
		return User{}, err
	}
	s.changed(ctx)
	return s.User(ctx, id)
}

// RemoveUser takes a user out of an organisation, with his keys and sign-ins
// there. What he made stays the organisation's.
func (s *Service) RemoveUser(ctx context.Context, id, org string) error {
	err := s.store.Transact(ctx, func(t *store.Tx) error {
		if err := lockRights(t); err != nil {
			return err
		}
		n, err := t.Exec(`DELETE FROM memberships WHERE user_id=? AND org_id=?`, id, org)
		if err != nil || n == 0 {
			return errors.Join(err, errNoUser(id))
		}
		if _, err := t.Exec(`UPDATE api_keys SET revoked_at=? WHERE user_id=? AND org_id=? AND revoked_at=0`, micros(s.now()), id, org); err != nil {
			return err
		}
		if _, err := t.Exec(`DELETE FROM logins WHERE user_id=? AND org_id=?`, id, org); err != nil {
			return err
		}
		if err := dropLinks(t, id); err != nil {
			return err
		}
		return ownersLeft(t, org)
	})
	if err == nil {
		s.changed(ctx)
	}
	return err
}

// lockRights has changes of rights come one after the other, on Postgres too.
func lockRights(t *store.Tx) error {
	_, err := t.Exec(`UPDATE organisations SET name=name`)
	return err
}

// ownersLeft refuses what would leave an organisation, or the installation,
// with nobody to put it right.
func ownersLeft(t *store.Tx, org string) error {
	var users, operators, owners, members int64
	if err := t.One(`SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM users WHERE operator AND disabled_at=0)`, nil, &users, &operators); err != nil {
		return err
	}
	if users > 0 && operators == 0 {
		return errdefs.New(errdefs.ErrConflict, "last-operator", "This would leave the installation without an operator.").WithHint("Make somebody else one first.")
	}
	if org == "" {
		return nil
	}
	if err := t.One(`SELECT count(*), coalesce(sum(CASE WHEN m.role='owner' AND u.disabled_at=0 THEN 1 ELSE 0 END), 0) FROM memberships m JOIN users u ON u.id=m.user_id WHERE m.org_id=?`, []any{org}, &members, &owners); err != nil {
		return err
	}
	if members > 0 && owners == 0 {
		return errdefs.New(errdefs.ErrConflict, "last-owner", "This would leave the organisation without an owner.").WithHint("Make somebody else owner first.")
	}
	return nil
}
