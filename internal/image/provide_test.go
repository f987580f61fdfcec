package image

import (
	"io/fs"
	"testing"
)

func TestEveryImageHasTheFoldersOfASandbox(t *testing.T) {
	tr := newTree()
	tr.provide()
	for _, name := range []string{"workspace", "uploaded_files"} {
		n := tr.root.entries[name]
		if n == nil || !n.mode.IsDir() || n.uid != 1000 || n.gid != 1000 {
			t.Errorf("/%s = %+v, want a folder of uid 1000", name, n)
		}
	}
	tmp := tr.root.entries["tmp"]
	if tmp == nil || tmp.mode != fs.ModeDir|fs.ModeSticky|0o777 || len(tmp.entries) == 0 {
		t.Errorf("/tmp = %+v, want a sticky folder that is not empty: gVisor would put memory there", tmp)
	}
}

func TestWhatAnImageBringsIsKept(t *testing.T) {
	tr := newTree()
	own := newDir(0)
	own.uid = 7
	tr.root.entries["workspace"] = own
	tr.provide()
	if got := tr.root.entries["workspace"]; got.uid != 7 {
		t.Errorf("the image's own /workspace was replaced: %+v", got)
	}
}
