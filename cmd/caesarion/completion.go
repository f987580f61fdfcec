package main

import (
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"

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
		fmt.Fprintf(&cases, "    %q) words=%q%s ;;\n", c.path, strings.Join(words, " "), files)
	}
	_, err := fmt.Fprintf(w, `_caesarion() {
  local current="${COMP_WORDS[COMP_CWORD]}" path="" words="" files="" word i
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
  if [[ -n "$files" || "${COMP_WORDS[COMP_CWORD-1]}" == --* ]] && [[ "$current" != -* ]]; then
    COMPREPLY+=($(compgen -f -- "$current"))
  fi
}
complete -o filenames -F _caesarion caesarion
`, bashPaths(commands), cases.String())
	return err
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
		for _, word := range c.words {
			if flag, ok := strings.CutPrefix(word.text, "--"); ok {
				fmt.Fprintf(&b, "complete -c caesarion -n \"__caesarion_at %s flag\" -l %s -d %s\n", quote(c.path), flag, quote(word.help))
			} else {
				fmt.Fprintf(&b, "complete -c caesarion -n \"__caesarion_at %s\" -a %s -d %s\n", quote(c.path), word.text, quote(word.help))
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
