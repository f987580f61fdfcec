package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/caesarion/caesarion/internal/identity"
)

const limitsKey = "limits"

// Limits says how much users and organisations may use. Without, there is no
// limit but what the machine has.
type Limits struct {
	Default       LimitSet            `yaml:"default,omitempty"`       // each user
	Roles         map[string]LimitSet `yaml:"roles,omitempty"`         // each user with this role, over the default
	Users         map[string]LimitSet `yaml:"users,omitempty"`         // one user by address or id, over both; local: who has the token
	Organisations map[string]LimitSet `yaml:"organisations,omitempty"` // all users of one together, by name or id; "*": of any other
}

// LimitSet is some limits. What is not there is left as it is.
type LimitSet struct {
	Sandboxes           *CountLimit `yaml:"sandboxes,omitempty"`             // awake at once
	Memory              *SizeLimit  `yaml:"memory,omitempty"`                // that these may take together
	Disk                *SizeLimit  `yaml:"disk,omitempty"`                  // that these may take together, and those that sleep do
	CreatesPerMinute    *CountLimit `yaml:"creates_per_minute,omitempty"`    // of sandboxes
	ExecutionsPerMinute *CountLimit `yaml:"executions_per_minute,omitempty"` // and commands
	CPUPerDay           *TimeLimit  `yaml:"cpu_per_day,omitempty"`           // all cores together
	EgressPerDay        *SizeLimit  `yaml:"egress_per_day,omitempty"`        // both directions
	ModelTokensPerDay   *CountLimit `yaml:"model_tokens_per_day,omitempty"`  // in and out
	UploadSize          *SizeLimit  `yaml:"upload_size,omitempty"`           // of one file
	UploadTypes         []string    `yaml:"upload_types,omitempty"`          // extensions; "*": all
}

// Unlimited is the value of a limit that is none, which files call none.
const Unlimited = -1

const noneWord = "none"

// CountLimit is a number, or Unlimited.
type CountLimit int64

// UnmarshalText implements encoding.TextUnmarshaler, for YAML.
func (l *CountLimit) UnmarshalText(text []byte) error {
	if string(text) == noneWord {
		*l = Unlimited
		return nil
	}
	n, err := strconv.ParseInt(strings.ReplaceAll(string(text), "_", ""), 10, 64)
	if err != nil || n < 0 {
		return fmt.Errorf("%q is not a limit: write a number such as 20, or none", text)
	}
	*l = CountLimit(n)
	return nil
}

// MarshalYAML implements yaml.Marshaler: a number is one in YAML too.
func (l CountLimit) MarshalYAML() (any, error) {
	if l == Unlimited {
		return noneWord, nil
	}
	return int64(l), nil
}

// SizeLimit is a size, or Unlimited.
type SizeLimit Bytes

// UnmarshalText implements encoding.TextUnmarshaler, for YAML.
func (l *SizeLimit) UnmarshalText(text []byte) error {
	if string(text) == noneWord {
		*l = Unlimited
		return nil
	}
	return (*Bytes)(l).UnmarshalText(text)
}

// MarshalText implements encoding.TextMarshaler. What has no short form is
// written in bytes, so that it reads back as it was.
func (l SizeLimit) MarshalText() ([]byte, error) {
	if l == Unlimited {
		return []byte(noneWord), nil
	}
	text := Bytes(l).String()
	if back, err := ParseBytes(text); err != nil || back != Bytes(l) {
		text = strconv.FormatInt(int64(l), 10) + "B"
	}
	return []byte(text), nil
}

// TimeLimit is a time, or Unlimited.
type TimeLimit Duration

// UnmarshalText implements encoding.TextUnmarshaler, for YAML.
func (l *TimeLimit) UnmarshalText(text []byte) error {
	if string(text) == noneWord {
		*l = Unlimited
		return nil
	}
	if err := (*Duration)(l).UnmarshalText(text); err != nil {
		return err
	}
	if *l < 0 {
		return fmt.Errorf("%q is not a limit: write a time such as 8h, or none", text)
	}
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (l TimeLimit) MarshalText() ([]byte, error) {
	if l == Unlimited {
		return []byte(noneWord), nil
	}
	return Duration(l).MarshalText()
}

// readLimits decodes the section of a file.
func (f *File) readLimits(text []byte) error {
	var doc struct {
		Limits yaml.Node `yaml:"limits"`
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("config: %s: %s: %s", f.Path, limitsKey, yamlMessage(err))
	}
	if doc.Limits.IsZero() {
		return nil
	}
	if err := checkEntryKeys[Limits](doc.Limits, "section limits"); err != nil {
		return fmt.Errorf("config: %s:%w", f.Path, err)
	}
	var parts struct {
		Default                     yaml.Node
		Roles, Users, Organisations map[string]yaml.Node
	}
	if err := doc.Limits.Decode(&parts); err != nil {
		return fmt.Errorf("config: %s: %s: %s", f.Path, limitsKey, yamlMessage(err))
	}
	sets := []yaml.Node{parts.Default}
	for _, m := range []map[string]yaml.Node{parts.Roles, parts.Users, parts.Organisations} {
		for _, name := range slices.Sorted(maps.Keys(m)) {
			sets = append(sets, m[name])
		}
	}
	for _, node := range sets {
		if err := checkEntryKeys[LimitSet](node, "set of limits"); err != nil {
			return fmt.Errorf("config: %s:%w", f.Path, err)
		}
	}
	if err := doc.Limits.Decode(&f.Limits); err != nil {
		return fmt.Errorf("config: %s: %s: %s", f.Path, limitsKey, yamlMessage(err))
	}
	return nil
}

// IsZero reports whether nothing is limited.
func (l Limits) IsZero() bool {
	return l.Default.isZero() && len(l.Roles)+len(l.Users)+len(l.Organisations) == 0
}

func (s LimitSet) isZero() bool {
	return s.Sandboxes == nil && s.Memory == nil && s.Disk == nil && s.CreatesPerMinute == nil && s.ExecutionsPerMinute == nil && s.CPUPerDay == nil &&
		s.EgressPerDay == nil && s.ModelTokensPerDay == nil && s.UploadSize == nil && s.UploadTypes == nil
}

// LocalUser is who has the token of a server, among Limits.Users.
const LocalUser = "local"

// validateLimits checks how much users may use.
func (s *Server) validateLimits() error {
	l := &s.Limits
	for role := range l.Roles {
		if !identity.Role(role).Valid() {
			return invalid(limitsKey+".roles", role, "allowed are viewer, member, admin and owner")
		}
	}
	if s.Auth != AuthAccounts && len(l.Roles)+len(l.Organisations) > 0 {
		return invalid(limitsKey, "roles and organisations", "auth is "+s.Auth+", which has one user: his limits are default, or users.local")
	}
	for user := range l.Users {
		if user != LocalUser && (!strings.Contains(user, "@") && !strings.HasPrefix(user, "usr_") || user != strings.ToLower(user)) {
			return invalid(limitsKey+".users", user, "write an address in lower case, an id such as usr_4kq2m7v6xqz5wd3h, or local for who has the token")
		}
	}
	for name, set := range l.Organisations {
		if name == "" || set.UploadSize != nil || set.UploadTypes != nil {
			return invalid(limitsKey+".organisations", name, "name an organisation, or \"*\"; upload_size and upload_types are of users")
		}
	}
	for _, sets := range []map[string]LimitSet{{"default": l.Default}, l.Roles, l.Users} {
		for name, set := range sets {
			for _, ext := range set.UploadTypes {
				if ext != "*" && !extension.MatchString(ext) {
					return invalid(limitsKey+"."+name+".upload_types", ext, "write them as csv, txt or tar.gz; \"*\" alone: all")
				}
			}
			if slices.Contains(set.UploadTypes, "*") && len(set.UploadTypes) > 1 {
				return invalid(limitsKey+"."+name+".upload_types", "*", "it stands alone: it means all types")
			}
		}
	}
	return nil
}
