package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"time"
)

// Pyodide is Python compiled to WebAssembly, in a Node process for each
// session. What isolates it is WebAssembly; the pipes to it are all there is
// between client and interpreter, no network and no server.
type Pyodide struct{ node, script string }

// NewPyodide takes the folder with the script and the packages installed.
func NewPyodide(node, folder string) (*Pyodide, error) {
	node, err := absolute(node)
	if err != nil {
		return nil, err
	}
	script, err := filepath.Abs(filepath.Join(folder, "pyodide.mjs"))
	return &Pyodide{node, script}, err
}

// Name implements Subject.
func (*Pyodide) Name() string { return "pyodide" }

// pyodideLine is one line of its script's answers.
type pyodideLine struct {
	Ready  bool   `json:"ready"`
	Text   string `json:"text"`
	Done   bool   `json:"done"`
	Result string `json:"result"`
	Error  string `json:"error"`
}

type pyodideSession struct {
	*process
	in  io.WriteCloser
	out *bufio.Reader
}

// Create implements Subject.
func (p *Pyodide) Create(ctx context.Context) (Session, error) {
	s := &pyodideSession{}
	outRead, outWrite := io.Pipe()
	var inErr error
	var err error
	s.process, err = startProcess(ctx, "pyodide", func(string) *exec.Cmd {
		cmd := exec.CommandContext(context.WithoutCancel(ctx), p.node, p.script)
		cmd.Dir = filepath.Dir(p.script)
		cmd.Stdout = outWrite
		s.in, inErr = cmd.StdinPipe()
		return cmd
	})
	if err = errors.Join(err, inErr); err != nil {
		return nil, err
	}
	go func() { // its end ends the reader
		<-s.done
		_ = outWrite.Close()
	}()
	s.out = bufio.NewReaderSize(outRead, 1<<20)
	line, err := s.next()
	if err == nil && !line.Ready {
		err = errors.New("its first line does not say that it is ready")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pyodide: %w: %s", err, s.words.lastWords()), s.Close(ctx))
	}
	return s, nil
}

func (s *pyodideSession) next() (pyodideLine, error) {
	var line pyodideLine
	text, err := s.out.ReadBytes('\n')
	if err != nil {
		return line, err
	}
	return line, json.Unmarshal(text, &line)
}

// Run implements Session.
func (s *pyodideSession) Run(_ context.Context, code string) (Sample, error) {
	var sample Sample
	request, err := json.Marshal(map[string]string{"code": code})
	if err != nil {
		return sample, err
	}
	start := time.Now()
	if _, err := s.in.Write(append(request, '\n')); err != nil {
		return sample, err
	}
	for {
		line, err := s.next()
		if err != nil {
			return sample, err
		}
		if sample.First == 0 && (line.Text != "" || line.Result != "") {
			sample.First = time.Since(start)
		}
		sample.printed(line.Text)
		if !line.Done {
			continue
		}
		if sample.Total, sample.Result = time.Since(start), line.Result; line.Error != "" {
			return sample, errors.New(line.Error)
		}
		return sample, nil
	}
}

// Close implements Session.
func (s *pyodideSession) Close(context.Context) error { return s.Stop() }
