package kube_test

import (
	"slices"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/agent/agenttest"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/sandboxtest"
)

// TestThePythonImageInAPod runs what people run, with a read-only root and as
// an ordinary user.
func TestThePythonImageInAPod(t *testing.T) {
	for _, class := range runtimes {
		t.Run(runtimeName(class), func(t *testing.T) {
			d := open(t, options(t, class))
			s := agenttest.New(t, sandboxtest.Client(t, d, create(t, d, spec(t))))
			for _, c := range []struct{ name, code, want string }{
				{"who it is", "import os\nprint(os.getuid(), os.getcwd(), os.path.expanduser('~'))", "1000 /workspace /home/user\n"},
				{"no capabilities", "print([l.split()[1] for l in open('/proc/self/status') if l.startswith('CapEff')])", "['0000000000000000']\n"},
				{"what may be written", `
for d in ('/workspace', '/uploaded_files', '/tmp', '/home/user', '/dev/shm'):
    open(d + '/probe', 'w').write('x')
for d in ('/', '/usr', '/etc', '/opt/caesarion'):
    try: open(d + '/probe', 'w'); print(d)
    except OSError as e: pass
print('done')`, "done\n"},
				{"nothing of the cluster", "import os\nprint([k for k in os.environ if 'KUBERNETES' in k or 'SERVICE' in k], os.path.exists('/var/run/secrets/kubernetes.io'))", "[] False\n"},
				{"history and caches", "import os, IPython\nget_ipython().run_line_magic('history', '-l 1')\nprint(os.path.isdir(os.path.expanduser('~/.cache')) or True)", "True\n"},
				{"a shell with the user's files", "import subprocess\nprint(subprocess.run('echo $HOME; test -e ~/.bashrc && echo there', shell=True, capture_output=True, text=True).stdout, end='')", "/home/user\nthere\n"},
				{"shared memory", "from multiprocessing import shared_memory\ns = shared_memory.SharedMemory(create=True, size=1<<20); s.close(); s.unlink(); print('ok')", "ok\n"},
				{"numbers", "import numpy, pandas\nprint(pandas.DataFrame({'a': numpy.arange(4)}).a.sum())", "6\n"},
			} {
				t.Run(c.name, func(t *testing.T) {
					r := s.Run(c.code).Expect(t, event.StatusOK, "")
					if got := r.Text("stdout"); got != c.want {
						t.Errorf("printed %q, want %q; %q", got, c.want, r.Text("stderr"))
					}
				})
			}
			t.Run("a plot", func(t *testing.T) {
				begin := time.Now()
				r := s.Run("import matplotlib.pyplot as plt\nplt.plot([1, 2, 3]); plt.show()").Expect(t, event.StatusOK, "")
				if len(r.All(event.OutputDisplay)) == 0 {
					t.Error("no picture")
				}
				t.Logf("first plot after %v", time.Since(begin).Round(time.Millisecond))
			})
		})
	}
}

// TestColdStart measures how long it takes from Create to the first output, the
// images being on the node, with the limits that a template has by default. The
// bound is for a machine that others use too; the goal is 4 s.
func TestColdStart(t *testing.T) {
	const n, bound = 7, 15 * time.Second
	for _, class := range runtimes {
		t.Run(runtimeName(class), func(t *testing.T) {
			d := open(t, options(t, class))
			var made, total []time.Duration
			for range n {
				begin := time.Now()
				s := spec(t)
				s.Limits = sandbox.Limits{}
				info := create(t, d, s)
				made = append(made, time.Since(begin))
				agenttest.New(t, sandboxtest.Client(t, d, info)).Run("print(1)").Expect(t, event.StatusOK, "")
				total = append(total, time.Since(begin))
				remove(t, d, info.ID)
			}
			slices.Sort(made)
			slices.Sort(total)
			t.Logf("n=%d created p50 %v max %v; first output p50 %v max %v", n,
				made[n/2].Round(time.Millisecond), made[n-1].Round(time.Millisecond), total[n/2].Round(time.Millisecond), total[n-1].Round(time.Millisecond))
			if total[n/2] > bound {
				t.Errorf("half of the starts take longer than %v", total[n/2])
			}
		})
	}
}
