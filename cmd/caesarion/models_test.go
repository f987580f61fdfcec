package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caesarion/caesarion/internal/config"
)

// A scripted model that is played by the command answers the command that
// tests models.
func TestScriptedModelAnswers(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CAESARION_CONFIG", os.DevNull)
	t.Setenv("CAESARION_DATA_DIR", dir)
	script := filepath.Join(dir, "script.yaml")
	content := "key: sk-secret-0123456789\nscenarios:\n  - match: with Python\n    steps: [{calls: [{name: python_interpreter, arguments: {code: print(6*7)}}]}]\n  - steps: [{text: Hi.}]\n"
	if err := os.WriteFile(script, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"dev", "scripted-llm", script, "--json"}, stdio{strings.NewReader(""), writer, t.Output()})
		_ = writer.Close()
	}()
	var started struct {
		BaseURL string `json:"base_url"`
	}
	if err := json.NewDecoder(reader).Decode(&started); err != nil || started.BaseURL == "" {
		t.Fatalf("it prints %+v, %v", started, err)
	}
	go func() { _, _ = io.Copy(io.Discard, reader) }()

	t.Setenv(config.EnvironmentSource, "sk-secret-0123456789")
	t.Setenv("OPENAI_BASE_URL", started.BaseURL)
	t.Setenv("OPENAI_MODEL", "scripted")
	var out, errs strings.Builder
	if code := run(t.Context(), []string{"model", "test"}, stdio{strings.NewReader(""), &out, &errs}); code != exitOK || !strings.Contains(out.String(), "It calls tools: print(6*7)") {
		t.Errorf("exit %d\n%s%s", code, out.String(), errs.String())
	}
	t.Setenv(config.EnvironmentSource, "sk-wrong-0123456789")
	out.Reset()
	if code := run(t.Context(), []string{"model", "test", "scripted"}, stdio{strings.NewReader(""), &out, &errs}); code == exitOK {
		t.Error("a wrong key is accepted")
	}
	if all := out.String() + errs.String(); !strings.Contains(all, "does not accept our key") || strings.Contains(all, "sk-") {
		t.Errorf("it says %s", all)
	}
	cancel()
	if code := <-ended; code != exitOK {
		t.Errorf("the server's exit status is %d", code)
	}
}
