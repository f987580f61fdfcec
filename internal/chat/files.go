package chat

import (
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/llm"
)

// The folders that belong to the user.
var userFolders = []string{"/uploaded_files", "/workspace"}

// Folders full of files that nobody asked about.
var skippedFolders = []string{".git", "__pycache__", "node_modules", ".ipynb_checkpoints", ".cache", ".venv"}

const (
	maxListed     = 2_000 // entries that are looked at
	maxFolderRows = 60    // entries of one folder that are shown: a folder of images has thousands
	maxListRows   = 250   // lines in all
	maxNamedFiles = 20    // files of a message whose size is looked up
)

// listFiles answers list_files: a tree with sizes, as text.
func (l *loop) listFiles(ctx context.Context, args map[string]any) (string, error) {
	folders := userFolders
	if p, _ := args["path"].(string); strings.TrimSpace(p) != "" && p != "/" {
		p = strings.TrimSpace(p)
		if !path.IsAbs(p) {
			p = path.Join("/workspace", p)
		}
		folders = []string{path.Clean(p)}
	}
	sb, err := l.sess.Sandbox(ctx)
	if err != nil {
		return "", err
	}
	if len(folders) == 1 {
		if _, err := sb.Agent().Stat(ctx, folders[0]); err != nil {
			return "", sb.Explain(err)
		}
	}
	tree, err := sb.Agent().Tree(ctx, agentapi.TreeRequest{Paths: folders, Skip: skippedFolders, Limit: maxListed})
	if err != nil {
		return "", sb.Explain(err)
	}
	return treeText(folders, tree), nil
}

func treeText(folders []string, tree agentapi.Tree) string {
	children := map[string][]agentapi.TreeEntry{}
	for _, e := range tree.Entries {
		if !slices.Contains(folders, e.Path) {
			children[path.Dir(e.Path)] = append(children[path.Dir(e.Path)], e)
		}
	}
	w := treeWriter{children: children, left: maxListRows}
	for _, f := range folders {
		fmt.Fprintf(&w.b, "%s/", strings.TrimSuffix(f, "/"))
		if len(children[f]) == 0 {
			w.b.WriteString(" (empty)")
		}
		w.b.WriteByte('\n')
		w.folder(f, "  ")
	}
	if tree.Truncated || w.left <= 0 {
		w.b.WriteString("… there is more: list a folder by its path\n")
	}
	return strings.TrimRight(w.b.String(), "\n")
}

type treeWriter struct {
	b        strings.Builder
	children map[string][]agentapi.TreeEntry
	left     int
}

func (w *treeWriter) folder(dir, indent string) {
	list := w.children[dir]
	for i, e := range list {
		if w.left <= 0 {
			return
		}
		if i == maxFolderRows {
			fmt.Fprintf(&w.b, "%s… and %d more\n", indent, len(list)-i)
			return
		}
		w.left--
		name := strings.Map(printable, path.Base(e.Path))
		switch e.Type {
		case agentapi.TypeDir:
			fmt.Fprintf(&w.b, "%s%s/\n", indent, name)
			w.folder(e.Path, indent+"  ")
		case agentapi.TypeSymlink:
			fmt.Fprintf(&w.b, "%s%s → %s\n", indent, name, strings.Map(printable, e.Target))
		default:
			fmt.Fprintf(&w.b, "%s%s  %s\n", indent, name, sizeText(e.SizeBytes))
		}
	}
}

var imageTypes = map[string]string{
	".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp",
}

// lookAtFiles finds the sizes of the files that came with the last message,
// and the images among the latest ones for a model that sees. What can't be
// found is named without a size: the model will notice what is not there.
func (l *loop) lookAtFiles(ctx context.Context, items []v1.Item) {
	last, lastUser := -1, -1
	for i, it := range items {
		if it.Kind == "user" {
			lastUser = i
		}
		if it.Kind == "user" && len(it.Files) > 0 {
			last = i
		}
	}
	if last < 0 {
		return
	}
	// Only files of the message at hand are worth a sandbox that starts or wakes.
	sb, ok := l.sess.AwakeSandbox()
	if !ok && last == lastUser {
		var err error
		if sb, err = l.sess.Sandbox(ctx); err != nil {
			return // a call of a tool will tell why
		}
	} else if !ok {
		return
	}
	defer sb.Use()()
	l.history.sizes, l.history.images = map[string]int64{}, map[string]llm.Image{}
	images := 0
	for i := last; i >= 0; i-- {
		for _, name := range items[i].Files {
			mediaType := imageTypes[strings.ToLower(path.Ext(name))]
			wanted := l.history.vision && mediaType != "" && images < maxShownImages
			if i < last && !wanted || len(l.history.sizes) >= maxNamedFiles {
				continue
			}
			f, err := sb.Agent().Stat(ctx, name)
			if err != nil || f.Type != agentapi.TypeFile {
				continue
			}
			l.history.sizes[name] = f.SizeBytes
			if !wanted || f.SizeBytes > maxImageBytes {
				continue
			}
			content, err := sb.Agent().Download(ctx, name, "")
			if err != nil {
				continue
			}
			data, err := io.ReadAll(io.LimitReader(content.Body, maxImageBytes+1))
			content.Body.Close()
			if err == nil && len(data) > 0 && len(data) <= maxImageBytes {
				l.history.images[name] = llm.Image{MediaType: mediaType, Data: data}
				images++
			}
		}
	}
}
