package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// completionCmd prints a completion script, made from the command line's own model.
type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help implements kong.HelpProvider.
func (completionCmd) Help() string {
	return `Examples:
  caesarion completion bash > /etc/bash_completion.d/caesarion
  caesarion completion zsh > "${fpath[1]}/_caesarion"
  caesarion completion fish > ~/.config/fish/completions/caesarion.fish`
}

// Run prints the script.
func (c completionCmd) Run(g *globals, app *kong.Kong) error {
	commands := completions(app.Model)
	switch c.Shell {
	case "bash":
		return bashCompletion(g.Stdout, commands)
	case "zsh":
		// zsh runs bash's completion functions.
		if _, err := fmt.Fprint(g.Stdout, "#compdef caesarion\nautoload -U +X bashcompinit && bashcompinit\n"); err != nil {
			return err
		}
		return bashCompletion(g.Stdout, commands)
	default:
		return fishCompletion(g.Stdout, commands)
	}
}

// word is something that can be completed.
type word struct{ text, help string }

// command is one command and what can follow it.
type command struct {
	path  string // "sandbox create"; "" is the program itself
	words []word // commands below it, and flags
	files bool   // takes file names too
	names string // takes the names of these too: nameSandboxes or nameSnapshots
}

// What has names that a server knows; values of the tag "names" of arguments
// and flags.
const (
	nameSandboxes = "sandboxes"
	nameSnapshots = "snapshots"
)

// namesCmd prints what the scripts complete by asking a server.
type namesCmd struct {
	Of string `arg:"" enum:"sandboxes,snapshots" help:"sandboxes or snapshots."`
}

// Help implements kong.HelpProvider.
func (namesCmd) Help() string {
	return "For completion scripts. Only a server that runs is asked; without one there are no names.\n\nExamples:\n  caesarion names sandboxes"
}

// namesTimeout is as long as somebody waits at a prompt.
const namesTimeout = 2 * time.Second

// Run prints one name a line, and nothing when there is nobody to ask: there
// is no place for messages in the middle of a line that is typed.
func (c namesCmd) Run(ctx context.Context, g *globals) error {
	ctx, cancel := context.WithTimeout(ctx, namesTimeout)
	defer cancel()
	token, err := g.Token()
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	var conn *connection
	if g.Server != "" {
		conn, err = g.connect(ctx, false)
	} else {
		conn, err = g.running(ctx, token.Reveal())
	}
	if conn == nil || err != nil {
		return nil //nolint:nilerr // see above
	}
	defer conn.Client.Close()
	var names []string
	if c.Of == nameSandboxes {
		list, _ := conn.Sandboxes(ctx)
		for _, sb := range list {
			names = append(names, sb.ID)
		}
	} else {
		list, _ := conn.Snapshots(ctx)
		for _, snap := range list {
			names = append(names, cmp.Or(snap.Name, snap.ID))
		}
	}
	for _, name := range names {
		fmt.Fprintln(g.Stdout, oneLine(name))
	}
	return nil
}

func completions(app *kong.Application) []command {
	var list []command
	var walk func(node *kong.Node, path []string)
	walk = func(node *kong.Node, path []string) {
		c := command{path: strings.Join(path, " "), files: node.Leaf() && len(node.Positional) > 0}
		for _, child := range node.Children {
			if !child.Hidden {
				c.words = append(c.words, word{child.Name, child.Help})
			}
		}
		for _, flags := range node.AllFlags(true) {
			for _, f := range flags {
				c.words = append(c.words, word{"--" + f.Name, f.Help})
			}
		}
		for _, p := range node.Positional {
			if names := p.Tag.Get("names"); names != "" {
				c.names, c.files = names, false
			}
			for _, value := range p.EnumSlice() {
				if value != "" {
					c.words, c.files = append(c.words, word{value, p.Help}), false
				}
			}
		}
		sort.SliceStable(c.words, func(i, j int) bool { return c.words[i].text < c.words[j].text })
		list = append(list, c)
		for _, child := range node.Children {
			if !child.Hidden {
				walk(child, append(slices.Clip(path), child.Name))
			}
		}
	}
	walk(app.Node, nil)
	return list
}

func bashCompletion(w io.Writer, commands []command) error {
	var cases strings.Builder
	for _, c := range commands {
		var words []string
		for _, word := range c.words {
			words = append(words, word.text)
		}
		files := ""
		if c.files {
			files = " files=1"
		}
		if c.names != "" {
			files += " names=" + c.names
		}
		fmt.Fprintf(&cases, "    %q) words=%q%s ;;\n", c.path, strings.Join(words, " "), files)
	}
	_, err := fmt.Fprintf(w, `_caesarion() {
  local current="${COMP_WORDS[COMP_CWORD]}" path="" words="" files="" names="" word i
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="${COMP_WORDS[i]}"
    [[ "$word" == -* ]] && continue
    case "${path:+$path }$word" in
%s      path="${path:+$path }$word" ;;
    esac
  done
  case "$path" in
%s  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  case "${COMP_WORDS[COMP_CWORD-1]}" in
%s  esac
  if [[ -n "$names" && "$current" != -* ]]; then
    COMPREPLY+=($(compgen -W "$(caesarion names "$names" 2>/dev/null)" -- "$current"))
  fi
  if [[ -z "$names" && "$current" != -* ]] && [[ -n "$files" || "${COMP_WORDS[COMP_CWORD-1]}" == --* ]]; then
    COMPREPLY+=($(compgen -f -- "$current"))
  fi
}
complete -o filenames -F _caesarion caesarion
`, bashPaths(commands), cases.String(), flagNames())
	return err
}

// namedFlags are the flags whose values a server knows.
var namedFlags = []word{{"--sandbox", nameSandboxes}, {"--snapshot", nameSnapshots}}

// flagNames is the part of a case statement that says what follows a flag.
func flagNames() string {
	var b strings.Builder
	for _, f := range namedFlags {
		fmt.Fprintf(&b, "    %s) names=%s words=\"\" files=\"\" COMPREPLY=() ;;\n", f.text, f.help)
	}
	return b.String()
}

// bashPaths is the pattern of all commands, as one case of a case statement.
func bashPaths(commands []command) string {
	var paths []string
	for _, c := range commands {
		if c.path != "" {
			paths = append(paths, fmt.Sprintf("%q", c.path))
		}
	}
	return "    " + strings.Join(paths, "|") + ")\n"
}

func fishCompletion(w io.Writer, commands []command) error {
	quote := func(s string) string {
		return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
	}
	var b strings.Builder
	b.WriteString(`function __caesarion_at
    set -l path
    for token in (commandline -opc)[2..]
        string match -q -- '-*' $token; and continue
        set -a path $token
    end
    set -l want (string split -n ' ' -- $argv[1])
    test (count $path) -ge (count $want); or return 1
    for i in (seq (count $want))
        test "$path[$i]" = "$want[$i]"; or return 1
    end
    # Commands are offered where none was chosen yet, flags anywhere below.
    test "$argv[2]" = flag; or test (count $path) -eq (count $want)
end
complete -c caesarion -f
`)
	for _, c := range commands {
		if c.files {
			fmt.Fprintf(&b, "complete -c caesarion -n \"__caesarion_at %s flag\" -F\n", quote(c.path))
		}
		if c.names != "" {
			fmt.Fprintf(&b, "complete -c caesarion -n \"__caesarion_at %s flag\" -a '(caesarion names %s 2>/dev/null)'\n", quote(c.path), c.names)
		}
		for _, w := range c.words {
			if flag, ok := strings.CutPrefix(w.text, "--"); ok {
				if i := slices.IndexFunc(namedFlags, func(f word) bool { return f.text == w.text }); i >= 0 {
					fmt.Fprintf(&b, "complete -c caesarion -n \"__caesarion_at %s flag\" -l %s -d %s -x -a '(caesarion names %s 2>/dev/null)'\n", quote(c.path), flag, quote(w.help), namedFlags[i].help)
					continue
				}
				fmt.Fprintf(&b, "complete -c caesarion -n \"__caesarion_at %s flag\" -l %s -d %s\n", quote(c.path), flag, quote(w.help))
			} else {
				fmt.Fprintf(&b, "complete -c caesarion -n \"__caesarion_at %s\" -a %s -d %s\n", quote(c.path), w.text, quote(w.help))
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
