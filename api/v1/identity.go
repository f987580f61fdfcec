package v1

import "time"

// SignInWays says how people sign in.
type SignInWays struct {
	Auth      string           `json:"auth" enum:"token,none,accounts" doc:"token: whoever has the server's token; none: nobody has to; accounts: users"`
	Password  bool             `json:"password" doc:"POST /v1/login takes email and password"`
	Providers []SignInProvider `json:"providers" doc:"Where one can sign in besides"`
	Setup     bool             `json:"setup" doc:"There are no users yet: the link that the server printed at its start makes the first"`
}

// SignInProvider is a provider of OpenID Connect.
type SignInProvider struct {
	Name  string `json:"name"`
	Title string `json:"title" doc:"For people"`
	URL   string `json:"url" doc:"Path to open in the browser; ?return= is where to go afterwards" example:"/v1/sign-in/oidc/company"`
}

// Me says who asks and what he may do.
type Me struct {
	Auth          string       `json:"auth" enum:"token,none,accounts"`
	UserID        string       `json:"user_id,omitempty" doc:"Absent: no user, as where there is only one"`
	Email         string       `json:"email,omitempty"`
	Name          string       `json:"name"`
	Organisation  *Membership  `json:"organisation,omitempty" doc:"In which one acts"`
	Organisations []Membership `json:"organisations" doc:"All that one belongs to"`
	Operator      bool         `json:"operator" doc:"Operates the installation"`
	KeyID         string       `json:"key_id,omitempty" doc:"The API key that was sent"`
	LoginID       string       `json:"login_id,omitempty" doc:"The sign-in of this browser"`
	Scopes        []string     `json:"scopes,omitempty" doc:"Of the API key; absent: all"`
	Password      bool         `json:"password" doc:"There is a password to change"`
	May           []string     `json:"may" doc:"What the role allows: read, write, execute, manage, administer, operate"`
	SignIn        SignInWays   `json:"sign_in"`
}

// Membership is somebody's place in an organisation.
type Membership struct {
	OrganisationID string `json:"organisation_id" example:"org_4kq2m7v6xqz5wd3h"`
	Name           string `json:"name"`
	Role           string `json:"role" enum:"viewer,member,admin,owner"`
}

// RedeemLink sets a password by a link, or makes the first user.
type RedeemLink struct {
	Secret       string `json:"secret" maxLength:"100" doc:"The last part of the link"`
	Password     string `json:"password" maxLength:"1000" doc:"At least 10 characters"`
	Email        string `json:"email,omitempty" maxLength:"254" doc:"Of the first user"`
	Name         string `json:"name,omitempty" maxLength:"200" doc:"Of the first user"`
	Organisation string `json:"organisation,omitempty" maxLength:"200" doc:"Name of the first organisation; default: Default"`
}

// ChangePassword sets another password.
type ChangePassword struct {
	Password    string `json:"password" maxLength:"1000" doc:"The one of before"`
	NewPassword string `json:"new_password" maxLength:"1000" doc:"At least 10 characters"`
}

// ChooseOrganisation says in which organisation a browser acts.
type ChooseOrganisation struct {
	OrganisationID string `json:"organisation_id" maxLength:"64"`
}

// BrowserLogin is a browser that is signed in.
type BrowserLogin struct {
	ID         string    `json:"id"`
	Current    bool      `json:"current" doc:"It is this one"`
	Address    string    `json:"address" doc:"Where it was when it signed in"`
	Agent      string    `json:"agent" doc:"What it calls itself"`
	CreatedAt  time.Time `json:"created_at"`
	LastSeenAt time.Time `json:"last_seen_at" doc:"Exact to a minute"`
	ExpiresAt  time.Time `json:"expires_at"`
}

// BrowserLoginList lists them.
type BrowserLoginList struct {
	Logins []BrowserLogin `json:"logins"`
}

// CreateKey asks for an API key.
type CreateKey struct {
	Name           string   `json:"name" maxLength:"200" doc:"What it is for" example:"nightly report"`
	Scopes         []string `json:"scopes,omitempty" maxItems:"50" doc:"What it may do; absent: all that its user may"`
	ExpiresMS      *int64   `json:"expires_ms,omitempty" minimum:"0" doc:"It is valid for so long; 0: for ever; absent: 90 days"`
	UserID         string   `json:"user_id,omitempty" maxLength:"254" doc:"For another user, by id or address; only operators may"`
	OrganisationID string   `json:"organisation_id,omitempty" maxLength:"64" doc:"In which organisation of that user; absent: the first"`
}

// RotateKey asks for a key in the place of another.
type RotateKey struct {
	OverlapMS *int64 `json:"overlap_ms,omitempty" minimum:"0" doc:"The old one stays valid for so long; absent: a day"`
}

// Key is an API key without its secret.
type Key struct {
	ID             string     `json:"id" doc:"Its first part" example:"csk_4kq2m7v6xqz5wd3h"`
	Name           string     `json:"name"`
	UserID         string     `json:"user_id"`
	Email          string     `json:"email" doc:"Of the user"`
	OrganisationID string     `json:"organisation_id"`
	Scopes         []string   `json:"scopes,omitempty" doc:"Absent: all that the user may"`
	State          string     `json:"state" enum:"active,expired,revoked"`
	CreatedAt      time.Time  `json:"created_at"`
	ExpiresAt      *time.Time `json:"expires_at,omitempty" doc:"Absent: never"`
	RevokedAt      *time.Time `json:"revoked_at,omitempty"`
	LastUsedAt     *time.Time `json:"last_used_at,omitempty" doc:"Exact to a minute; absent: never"`
}

// NewKey is a key with its secret, which is told once.
type NewKey struct {
	Key
	Secret string `json:"secret" doc:"The key as it is sent. Nobody can read it again." example:"csk_4kq2m7v6xqz5wd3h_…"`
}

// KeyList lists keys.
type KeyList struct {
	Keys   []Key    `json:"keys"`
	Scopes []string `json:"scopes" doc:"All there are"`
}

// User is somebody with an account.
type User struct {
	ID           string       `json:"id" example:"usr_4kq2m7v6xqz5wd3h"`
	Email        string       `json:"email"`
	Name         string       `json:"name"`
	Operator     bool         `json:"operator"`
	Password     bool         `json:"password" doc:"There is one"`
	Disabled     bool         `json:"disabled"`
	Memberships  []Membership `json:"memberships"`
	CreatedAt    time.Time    `json:"created_at"`
	LastSignInAt *time.Time   `json:"last_sign_in_at,omitempty" doc:"Absent: never"`
}

// UserList lists users.
type UserList struct {
	Users []User `json:"users"`
}

// CreateUser makes a user.
type CreateUser struct {
	Email          string `json:"email" maxLength:"254"`
	Name           string `json:"name,omitempty" maxLength:"200"`
	Password       string `json:"password,omitempty" maxLength:"1000" doc:"Absent: POST …/link gives a link that sets one"`
	OrganisationID string `json:"organisation_id,omitempty" maxLength:"64" doc:"Absent: one's own. Another's only operators may name."`
	Role           string `json:"role,omitempty" enum:"viewer,member,admin,owner" doc:"Absent: owner of an organisation without users, else member"`
	Operator       bool   `json:"operator,omitempty" doc:"Only operators can make another"`
}

// UpdateUser changes a user. What is absent stays.
type UpdateUser struct {
	Name           *string `json:"name,omitempty" maxLength:"200"`
	Role           *string `json:"role,omitempty" enum:"viewer,member,admin,owner" doc:"In the organisation; only owners make owners and change them"`
	OrganisationID string  `json:"organisation_id,omitempty" maxLength:"64" doc:"Absent: one's own"`
	Disabled       *bool   `json:"disabled,omitempty" doc:"Can't sign in, and keys are refused"`
	Operator       *bool   `json:"operator,omitempty" doc:"Only operators can change it"`
}

// UserLink is a link that sets a password, once.
type UserLink struct {
	URL       string    `json:"url"`
	ExpiresAt time.Time `json:"expires_at"`
}

// Organisation is a group of users that shares nothing with others.
type Organisation struct {
	ID        string    `json:"id" example:"org_4kq2m7v6xqz5wd3h"`
	Name      string    `json:"name"`
	Users     int64     `json:"users"`
	CreatedAt time.Time `json:"created_at"`
}

// OrganisationList lists organisations.
type OrganisationList struct {
	Organisations []Organisation `json:"organisations"`
}

// CreateOrganisation makes an organisation.
type CreateOrganisation struct {
	Name string `json:"name" maxLength:"200"`
}

// AuditEntry tells who did what to which object, when and from where.
type AuditEntry struct {
	N              int64     `json:"n"`
	At             time.Time `json:"at"`
	UserID         string    `json:"user_id,omitempty"`
	OrganisationID string    `json:"organisation_id,omitempty"`
	Name           string    `json:"name,omitempty" doc:"Of the user, at that time"`
	Via            string    `json:"via,omitempty" doc:"The API key or the sign-in"`
	Action         string    `json:"action" doc:"The operation, by its name in the OpenAPI, or sign-in" example:"create-sandbox"`
	Object         string    `json:"object,omitempty" doc:"Its id"`
	Status         int       `json:"status" doc:"Of the answer"`
	Code           string    `json:"code,omitempty" doc:"Why it was refused"`
	Address        string    `json:"address,omitempty" doc:"Where the request came from"`
	RequestID      string    `json:"request_id,omitempty" doc:"Stands in the server's log too"`
}

// AuditList lists entries, the latest first.
type AuditList struct {
	Entries []AuditEntry `json:"entries"`
	Next    int64        `json:"next,omitempty" doc:"before of the next page; absent: this was the last"`
}
