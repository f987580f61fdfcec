package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// policy is licenses/policy.json: what may be in what we hand on.
type policy struct {
	// Allowed SPDX identifiers by kind of component.
	Allowed map[string][]string `json:"allowed"`
	// Decided says of single components ("npm:name") what a person read.
	Decided map[string]decision `json:"decided"`
}

type decision struct {
	Licence string `json:"licence"`
	Why     string `json:"why"`
}

func readPolicy(root string) (policy, error) {
	var p policy
	raw, err := os.ReadFile(filepath.Join(root, "licenses/policy.json"))
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		return p, wrap("licenses/policy.json", err)
	}
	for id, d := range p.Decided {
		if d.Licence == "" || d.Why == "" {
			return p, fmt.Errorf("licenses/policy.json: %s needs a licence and the reason why", id)
		}
	}
	return p, nil
}

var words = regexp.MustCompile(`[^\s()]+`)

// judge gives the licence of a component and why it may not be in, or "".
func (p policy) judge(c Component) (licence, refused string) {
	licence = c.licence()
	if d, ok := p.Decided[c.id()]; ok {
		return d.Licence, p.refuse(c.Kind, d.Licence)
	}
	if licence == "" {
		return "", "no metadata and no text say its licence; read it and enter it in licenses/policy.json, decided"
	}
	if refused = p.refuse(c.Kind, licence); refused != "" {
		return licence, refused
	}
	// What is declared must not be gainsaid by the text that comes with it.
	for _, id := range c.found() {
		if refused = p.refuse(c.Kind, id); refused != "" {
			return licence, "it declares " + licence + ", but a text in it is " + id + ": " + refused
		}
	}
	return licence, ""
}

// refuse looks at an SPDX expression: of words joined by OR one must be allowed,
// all others must.
func (p policy) refuse(kind, expression string) string {
	if !strings.Contains(expression, "(") && strings.Contains(expression, " OR ") && !strings.Contains(expression, " AND ") {
		for id := range strings.SplitSeq(expression, " OR ") {
			if p.refuse(kind, id) == "" {
				return ""
			}
		}
		return expression + " is not among the licences allowed for " + kind
	}
	tokens := words.FindAllString(expression, -1)
	for i, word := range tokens {
		if word == "AND" || word == "OR" || word == "WITH" {
			continue
		}
		if i+2 < len(tokens) && tokens[i+1] == "WITH" {
			word += " WITH " + tokens[i+2]
		} else if i > 0 && tokens[i-1] == "WITH" {
			continue
		}
		if !slices.Contains(p.Allowed[kind], word) {
			return word + " is not among the licences allowed for " + kind
		}
	}
	return ""
}
