package session

import (
	"encoding/json"
	"slices"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// node is an item in the tree. Children of one node are alternatives, of which
// one is selected; the thread is the path of selected nodes from the root.
type node struct {
	*entry
	parent   *node
	children []*node // oldest first
	selected *node   // nil: the thread ends here
	removed  *removal
	seq      int64           // events up to this number are in its row
	dirty    bool            // its content is newer than its row
	at       []byte          // its place as its row has it
	short    bool            // long values are cut: the whole outputs are in the store only
	full     json.RawMessage // whole outputs on their way to the store, when short
	indexed  string
}

// removal remembers where a removed node was, for its return.
type removal struct {
	after    string   // the node before it
	siblings []string // its own alternatives
	rank     int      // among them
	selected string
}

// place is a node's place in the tree, as its row keeps it.
type place struct {
	Parent   string   `json:"parent,omitempty"`
	Rank     int      `json:"rank,omitempty"` // among its siblings
	Selected string   `json:"selected,omitempty"`
	Removed  bool     `json:"removed,omitempty"`
	After    string   `json:"after,omitempty"`
	Siblings []string `json:"siblings,omitempty"`
	Was      string   `json:"was,omitempty"` // selected when it was removed
	Pending  bool     `json:"pending,omitempty"`
}

// tree has the nodes of a session. The root is no item.
type tree struct {
	root  node
	nodes map[string]*node
}

func newTree() tree {
	return tree{root: node{entry: &entry{}}, nodes: map[string]*node{}}
}

// path gives the thread.
func (t *tree) path() []*node {
	var list []*node
	for n := t.root.selected; n != nil; n = n.selected {
		list = append(list, n)
	}
	return list
}

// pathTo gives the nodes from the root to n.
func (t *tree) pathTo(n *node) []*node {
	var list []*node
	for ; n != nil && n != &t.root; n = n.parent {
		list = append(list, n)
	}
	slices.Reverse(list)
	return list
}

// last gives the end of the thread, the root if there is nothing.
func (t *tree) last() *node {
	n := &t.root
	for n.selected != nil {
		n = n.selected
	}
	return n
}

// visible reports whether n is on the thread.
func (t *tree) visible(n *node) bool {
	for ; n != &t.root; n = n.parent {
		if n.parent == nil || n.parent.selected != n {
			return false
		}
	}
	return true
}

// insert puts n behind a node: all that followed it follows n, so that
// alternatives stay together.
func (t *tree) insert(n, after *node) {
	n.children, n.selected = after.children, after.selected
	for _, c := range n.children {
		c.parent = n
	}
	n.parent, after.children, after.selected = after, []*node{n}, n
}

// branch adds n as one more alternative behind a node and selects it.
func (t *tree) branch(n, after *node) {
	n.parent = after
	after.children = append(after.children, n)
	after.selected = n
}

// take takes n out; what followed it moves up to where it was.
func (t *tree) take(n *node) {
	p := n.parent
	i := slices.Index(p.children, n)
	for _, c := range n.children {
		c.parent = p
	}
	p.children = slices.Replace(slices.Clone(p.children), i, i+1, n.children...)
	if p.selected == n {
		// An alternative that is left over must be seen: nothing else leads to it.
		if p.selected = n.selected; p.selected == nil && len(p.children) > 0 {
			p.selected = p.children[min(i, len(p.children)-1)]
		}
	}
	n.parent, n.children, n.selected = nil, nil, nil
}

// remove is take, remembering the place.
func (t *tree) remove(n *node) {
	r := &removal{after: n.parent.item.ID}
	for i, c := range n.parent.children {
		if c == n {
			r.rank = i
		} else {
			r.siblings = append(r.siblings, c.item.ID)
		}
	}
	if n.selected != nil {
		r.selected = n.selected.item.ID
	}
	t.take(n)
	n.removed = r
}

// restore brings a removed node back to its place, as far as that still is:
// what were its alternatives are so again, all else behind its place is behind
// it.
func (t *tree) restore(n *node) {
	r := n.removed
	n.removed = nil
	p := t.at(r.after)
	if p == nil {
		p = t.last()
	}
	var behind, beside []*node
	for _, c := range p.children {
		if slices.Contains(r.siblings, c.item.ID) {
			beside = append(beside, c)
		} else {
			behind = append(behind, c)
		}
	}
	for _, c := range behind {
		c.parent = n
		if p.selected == c || n.selected == nil && c.item.ID == r.selected {
			n.selected = c
		}
	}
	if n.children = behind; n.selected == nil && len(behind) > 0 {
		n.selected = behind[len(behind)-1]
	}
	n.parent = p
	p.children = slices.Insert(beside, min(r.rank, len(beside)), n)
	p.selected = n
}

// choose selects n among its alternatives, and what leads to it.
func (t *tree) choose(n *node) {
	for ; n != &t.root; n = n.parent {
		n.parent.selected = n
	}
}

// at finds a node in the tree by id; "" is the root; nil if it is not there.
func (t *tree) at(id string) *node {
	if id == "" {
		return &t.root
	}
	if n := t.nodes[id]; n != nil && n.parent != nil {
		return n
	}
	return nil
}

// find finds a node that is in the tree.
func (t *tree) find(id string) (*node, error) {
	if n := t.at(id); n != nil && id != "" {
		return n, nil
	}
	return nil, errItem(id)
}

func errItem(id string) error {
	return errdefs.New(errdefs.ErrNotFound, "item-not-found", "The session has no item %.80q.", id).WithHint("Get the session again: the item may have been deleted.")
}

// siblings gives n and its alternatives; nil when there are none.
func (n *node) siblings() []string {
	if n.parent == nil || len(n.parent.children) < 2 {
		return nil
	}
	ids := make([]string, len(n.parent.children))
	for i, c := range n.parent.children {
		ids[i] = c.item.ID
	}
	return ids
}

// place gives what the row of n keeps of the tree.
func (n *node) place() place {
	p := place{Pending: n.out.pending}
	if n.selected != nil {
		p.Selected = n.selected.item.ID
	}
	if n.parent != nil {
		p.Parent = n.parent.item.ID
		p.Rank = slices.Index(n.parent.children, n)
	}
	if r := n.removed; r != nil {
		p.Removed, p.After, p.Siblings, p.Rank, p.Was = true, r.after, r.siblings, r.rank, r.selected
	}
	return p
}

// link builds the tree from the rows' places.
func (t *tree) link(places map[string]place, selected string) {
	for id, n := range t.nodes {
		p := places[id]
		n.out.pending = p.Pending
		if p.Removed {
			n.removed = &removal{after: p.After, siblings: p.Siblings, rank: p.Rank, selected: p.Was}
			continue
		}
		parent := &t.root
		if p.Parent != "" {
			parent = t.nodes[p.Parent]
		}
		if parent == nil || parent == n {
			parent = &t.root // a damaged row: better seen at the wrong place than lost
		}
		n.parent = parent
		parent.children = append(parent.children, n)
	}
	sel := func(n *node, id string) {
		slices.SortFunc(n.children, func(a, b *node) int { return places[a.item.ID].Rank - places[b.item.ID].Rank })
		for _, c := range n.children {
			if c.item.ID == id {
				n.selected = c
			}
		}
	}
	sel(&t.root, selected)
	for id, n := range t.nodes {
		sel(n, places[id].Selected)
	}
}

// inTree reports whether n is still a part of the tree.
func (t *tree) inTree(n *node) bool { return n == &t.root || n.parent != nil }
