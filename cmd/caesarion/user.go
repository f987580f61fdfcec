package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/identity/accounts"
)

// userCmd groups the commands on users.
type userCmd struct {
	Add    userAddCmd    `cmd:"" help:"Make a user."`
	Ls     userLsCmd     `cmd:"" help:"List the users." aliases:"list"`
	Set    userSetCmd    `cmd:"" help:"Change a user's role or state."`
	Link   userLinkCmd   `cmd:"" help:"Make a link by which a user sets a password."`
	Remove userRemoveCmd `cmd:"" name:"rm" help:"Take a user out of an organisation." aliases:"remove"`
}

// Help implements kong.HelpProvider.
func (*userCmd) Help() string {
	return `Of a server that runs with --auth accounts. On its own machine the commands operate the installation with its token; elsewhere CAESARION_TOKEN is an API key of an admin.

Examples:
  caesarion user add ann@example.org --org Acme --operator
  caesarion user add bob@example.org --org Acme --role viewer
  caesarion user set bob@example.org --org Acme --role member
  caesarion user link bob@example.org
  caesarion user ls`
}

type userAddCmd struct {
	Email         string `arg:"" help:"E-mail address."`
	Name          string `help:"For people (default: the first part of the address)." placeholder:"NAME"`
	Org           string `help:"Name of the organisation; it is made if there is none (default: one's own, or Default)." placeholder:"NAME"`
	Role          string `help:"viewer, member, admin or owner (default: owner of a new organisation, else member)." enum:",viewer,member,admin,owner" default:"" placeholder:"ROLE"`
	Operator      bool   `help:"The user operates the installation. The first user does in any case."`
	PasswordStdin bool   `help:"Read the password from standard input, one line; otherwise a link sets one."`
}

// Help implements kong.HelpProvider.
func (*userAddCmd) Help() string {
	return "Prints a link by which the user sets a password, unless one is given. Works without a running server, too: so the first user is made.\n\nExamples:\n  caesarion user add ann@example.org --org Acme\n  pass show caesarion | caesarion user add ann@example.org --password-stdin"
}

// Run makes the user.
func (c *userAddCmd) Run(ctx context.Context, g *globals) error {
	in := v1.CreateUser{Email: c.Email, Name: c.Name, Role: c.Role, Operator: c.Operator}
	if c.PasswordStdin {
		line, err := bufio.NewReader(g.Stdin).ReadString('\n')
		if in.Password = strings.TrimRight(line, "\r\n"); in.Password == "" {
			return errdefs.New(errdefs.ErrInvalid, "usage", "standard input has no password").WithHint("one line, with the password and nothing else").WithCause(err)
		}
	}
	conn, err := g.server(ctx)
	if err != nil {
		return err
	}
	if conn == nil {
		return c.offline(ctx, g, in)
	}
	defer conn.Close()
	if in.OrganisationID, err = organisationNamed(ctx, conn, c.Org, true); err != nil {
		return err
	}
	if !in.Operator && in.OrganisationID != "" { // else by an admin, when there are users
		if users, err := conn.Users(ctx, "*"); err == nil && len(users) == 0 {
			in.Operator = true
		}
	}
	u, err := conn.CreateUser(ctx, in)
	if err != nil {
		return err
	}
	var link v1.UserLink
	if in.Password == "" {
		if link, err = conn.UserLink(ctx, u.ID); err != nil {
			return err
		}
	}
	return g.showUser(u.ID, u.Email, link.URL)
}

func (g *globals) showUser(id, email, link string) error {
	if g.JSON {
		return printJSON(g.Stdout, map[string]string{"id": id, "email": email, "link": link})
	}
	if link == "" {
		_, err := fmt.Fprintf(g.Stdout, "%s is %s\n", email, id)
		return err
	}
	_, err := fmt.Fprintf(g.Stdout, "%s is %s. This link sets the password, once, within %d days; give it to nobody else:\n\n  %s\n\n", email, id, int(accounts.LinkFor.Hours()/24), link)
	return err
}

// offline makes a user where no server runs.
func (c *userAddCmd) offline(ctx context.Context, g *globals, in v1.CreateUser) (err error) {
	cfg, err := config.Load(g.Base)
	if err != nil {
		return err
	}
	if err := makeDataDir(g.DataDir); err != nil {
		return err
	}
	lock, err := lockData(g.DataDir, soloLockWait)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	cfg.ReplicaAddress = "" // this one owns nothing
	st, _, err := openStore(ctx, serverOptions{base: g.Base, cfg: cfg, log: g.Logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	svc := accounts.New(ctx, st, accountOptions(cfg.SignIn))
	defer func() { err = errors.Join(err, svc.Close()) }()
	org, err := svc.FindOrg(ctx, cmp.Or(c.Org, defaultOrg))
	if errors.Is(err, errdefs.ErrNotFound) {
		org, err = svc.CreateOrg(ctx, cmp.Or(c.Org, defaultOrg))
	}
	if err != nil {
		return err
	}
	users, err := svc.Count(ctx)
	if err != nil {
		return err
	}
	u, err := svc.CreateUser(ctx, accounts.NewUser{Email: in.Email, Name: in.Name, Password: in.Password, Org: org.ID, Role: identity.Role(in.Role), Operator: in.Operator || users == 0})
	if err != nil {
		return err
	}
	told := accounts.NewEntry(identity.Principal{Name: "command line", Org: org.ID}, "create-user")
	told.Object, told.Status = u.ID, http.StatusCreated
	svc.Record(told)
	link := ""
	if in.Password == "" {
		secret, err := svc.NewLink(ctx, u.ID)
		if err != nil {
			return err
		}
		link = strings.TrimSuffix(cmp.Or(cfg.PublicURL, localURL(cfg)), "/") + "/#set-password=" + secret
	}
	return g.showUser(u.ID, u.Email, link)
}

// localURL gives where a server with these settings would be.
func localURL(cfg config.Server) string {
	if cfg.TLSCert != "" {
		return "https://" + cfg.Listen
	}
	return "http://" + cfg.Listen
}

const defaultOrg = "Default"

// server gives the server that is named or runs here; nil: none does.
func (g *globals) server(ctx context.Context) (*connection, error) {
	if g.Server != "" {
		return g.connect(ctx, false)
	}
	token, err := g.Token()
	if err != nil {
		return nil, err
	}
	return g.running(ctx, token.Reveal())
}

// onServer calls do with the server that is named or runs here.
func (g *globals) onServer(ctx context.Context, do func(*connection) error) error {
	conn, err := g.server(ctx)
	if err != nil {
		return err
	}
	if conn == nil {
		return errdefs.New(errdefs.ErrUnavailable, "server-none", "no server runs on %s", filepath.Clean(g.DataDir)).
			WithHint("start it: caesarion serve --auth accounts; or name one with --server")
	}
	defer conn.Close()
	return do(conn)
}

// organisationNamed gives the id of an organisation by its name, for operators;
// "" stands for one's own. With create it is made if it is not there.
func organisationNamed(ctx context.Context, conn *connection, name string, create bool) (string, error) {
	me, err := conn.Me(ctx)
	if err != nil {
		return "", err
	}
	if me.Organisation != nil && (name == "" || name == me.Organisation.Name || name == me.Organisation.OrganisationID) {
		return me.Organisation.OrganisationID, nil
	}
	name = cmp.Or(name, defaultOrg)
	list, err := conn.Organisations(ctx)
	if err != nil {
		return "", err
	}
	for _, o := range list {
		if o.Name == name || o.ID == name {
			return o.ID, nil
		}
	}
	if !create {
		return "", errdefs.New(errdefs.ErrNotFound, "organisation-not-found", "there is no organisation %q", name).WithHint("caesarion user ls shows those there are")
	}
	o, err := conn.CreateOrganisation(ctx, name)
	return o.ID, err
}

type userLsCmd struct {
	Org string `help:"Of this organisation only." placeholder:"NAME"`
}

// Help implements kong.HelpProvider.
func (*userLsCmd) Help() string {
	return "Examples:\n  caesarion user ls\n  caesarion user ls --org Acme --json"
}

// Run lists the users.
func (c *userLsCmd) Run(ctx context.Context, g *globals) error {
	return g.onServer(ctx, func(conn *connection) error {
		org := ""
		if c.Org != "" {
			var err error
			if org, err = organisationNamed(ctx, conn, c.Org, false); err != nil {
				return err
			}
		}
		users, err := conn.Users(ctx, org)
		if err != nil {
			return err
		}
		if g.JSON {
			return printJSON(g.Stdout, v1.UserList{Users: users})
		}
		t := tabwriter.NewWriter(g.Stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "ADDRESS\tNAME\tORGANISATIONS\tSTATE\tLAST SIGN-IN\tID")
		for _, u := range users {
			var roles []string
			for _, m := range u.Memberships {
				roles = append(roles, m.Name+" ("+m.Role+")")
			}
			state := "active"
			switch {
			case u.Disabled:
				state = "disabled"
			case u.Operator:
				state = "operator"
			}
			last := "never"
			if u.LastSignInAt != nil {
				last = ageText(time.Since(*u.LastSignInAt)) + " ago"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", oneLine(u.Email), oneLine(u.Name), oneLine(cmp.Or(strings.Join(roles, ", "), "-")), state, last, u.ID)
		}
		return t.Flush()
	})
}

type userSetCmd struct {
	User     string `arg:"" help:"Address or id."`
	Org      string `help:"Organisation whose role is meant (default: one's own)." placeholder:"NAME"`
	Role     string `help:"viewer, member, admin or owner." enum:",viewer,member,admin,owner" default:"" placeholder:"ROLE"`
	Name     string `help:"For people." placeholder:"NAME"`
	Disabled *bool  `help:"Can't sign in, and keys are refused." negatable:""`
	Operator *bool  `help:"Operates the installation." negatable:""`
}

// Help implements kong.HelpProvider.
func (*userSetCmd) Help() string {
	return "In force at once, also for keys and browsers that are signed in.\n\nExamples:\n  caesarion user set bob@example.org --org Acme --role admin\n  caesarion user set bob@example.org --disabled"
}

// Run changes the user.
func (c *userSetCmd) Run(ctx context.Context, g *globals) error {
	return g.onServer(ctx, func(conn *connection) error {
		in := v1.UpdateUser{Disabled: c.Disabled, Operator: c.Operator}
		if c.Name != "" {
			in.Name = &c.Name
		}
		if c.Role != "" || c.Org != "" {
			org, err := organisationNamed(ctx, conn, c.Org, false)
			if err != nil {
				return err
			}
			in.OrganisationID = org
		}
		if c.Role != "" {
			in.Role = &c.Role
		}
		u, err := conn.UpdateUser(ctx, c.User, in)
		if err != nil || !g.JSON {
			return err
		}
		return printJSON(g.Stdout, u)
	})
}

type userLinkCmd struct {
	User string `arg:"" help:"Address or id."`
}

// Help implements kong.HelpProvider.
func (*userLinkCmd) Help() string {
	return "Links of before are no longer good.\n\nExamples:\n  caesarion user link bob@example.org"
}

// Run makes the link.
func (c *userLinkCmd) Run(ctx context.Context, g *globals) error {
	return g.onServer(ctx, func(conn *connection) error {
		link, err := conn.UserLink(ctx, c.User)
		if err != nil {
			return err
		}
		if g.JSON {
			return printJSON(g.Stdout, link)
		}
		_, err = fmt.Fprintln(g.Stdout, link.URL)
		return err
	})
}

type userRemoveCmd struct {
	User string `arg:"" help:"Address or id."`
	Org  string `help:"Organisation (default: one's own)." placeholder:"NAME"`
}

// Help implements kong.HelpProvider.
func (*userRemoveCmd) Help() string {
	return "Keys and browsers of the user there are no longer good; what he made stays.\n\nExamples:\n  caesarion user rm bob@example.org --org Acme"
}

// Run takes the user out.
func (c *userRemoveCmd) Run(ctx context.Context, g *globals) error {
	return g.onServer(ctx, func(conn *connection) error {
		org, err := organisationNamed(ctx, conn, c.Org, false)
		if err != nil {
			return err
		}
		return conn.RemoveUser(ctx, c.User, org)
	})
}
