// Command testsummary reads the output of "go test -json" and prints what a
// person wants to see: a line for each package, everything that a failed test
// said, and each skip with its reason.
//
//	go test -json ./... | testsummary [-counts FILE]
//
// With -counts, "passed failed" is appended to FILE, for .ci/run. A test with
// subtests counts as its subtests. It exits 1 if anything failed.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

// line is one line of go test -json (go doc test2json).
type line struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

type key struct{ pkg, test string }

type summary struct {
	output                  map[key][]string
	parent                  map[key]bool // has subtests
	result                  map[key]string
	order                   []key
	passed, failed, skipped int
	skips                   []string
	short                   int // of those skipped, because of -short: others run them
}

func main() {
	counts := flag.String("counts", "", "append \"passed failed\" to this `file`")
	flag.Parse()
	started := time.Now()
	s := summary{output: map[key][]string{}, parent: map[key]bool{}, result: map[key]string{}}
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	for {
		text, err := in.ReadString('\n')
		if text != "" {
			s.line(text)
		}
		if err != nil {
			break
		}
	}
	s.count()
	for _, skip := range s.skips {
		fmt.Println("skipped:", skip)
	}
	if s.short > 0 {
		fmt.Printf("left to other targets: %d tests that -short leaves out\n", s.short)
	}
	fmt.Printf("%d passed, %d failed, %d skipped in %s\n", s.passed, s.failed, s.skipped-s.short, time.Since(started).Round(time.Second))
	if *counts != "" {
		f, err := os.OpenFile(*counts, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err == nil {
			_, err = fmt.Fprintln(f, s.passed, s.failed)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "testsummary:", err)
			os.Exit(1)
		}
		_ = f.Close()
	}
	if s.failed > 0 {
		os.Exit(1)
	}
}

func (s *summary) line(text string) {
	var l line
	if json.Unmarshal([]byte(text), &l) != nil {
		fmt.Print(text) // the go command's own words
		return
	}
	k := key{l.Package, l.Test}
	switch l.Action {
	case "build-output":
		fmt.Print(l.Output)
	case "run":
		s.order = append(s.order, k)
		for name := l.Test; ; {
			i := strings.LastIndexByte(name, '/')
			if i < 0 {
				break
			}
			name = name[:i]
			s.parent[key{l.Package, name}] = true
		}
	case "output":
		s.output[k] = append(s.output[k], l.Output)
	case "pass", "fail", "skip":
		s.end(k, l)
	}
}

// end prints what is to be said when a test or package ends.
func (s *summary) end(k key, l line) {
	s.result[k] = l.Action
	switch {
	case k.test != "" && l.Action == "fail":
		fmt.Printf("FAIL %s %s\n%s", k.pkg, k.test, strings.Join(s.output[k], ""))
	case k.test != "" && l.Action == "skip":
		if why := reason(s.output[k]); strings.Contains(why, ": -short:") {
			s.short++
		} else {
			s.skips = append(s.skips, fmt.Sprintf("%s %s: %s", k.pkg, k.test, why))
		}
	case k.test == "" && l.Action == "fail":
		// A panic, a leak or an exit belongs to no test.
		fmt.Printf("FAIL %s (%.1fs)\n%s", k.pkg, l.Elapsed, strings.Join(s.output[k], ""))
		if l.FailedBuild != "" || !s.anyFailed(k.pkg) {
			s.failed++
		}
	case k.test == "" && l.Action == "pass":
		cached := ""
		if strings.Contains(strings.Join(s.output[k], ""), "(cached)") {
			cached = ", cached"
		}
		fmt.Printf("ok   %s (%.1fs%s)\n", k.pkg, l.Elapsed, cached)
	}
	delete(s.output, k)
}

func (s *summary) anyFailed(pkg string) bool {
	for k, result := range s.result {
		if k.pkg == pkg && k.test != "" && result == "fail" {
			return true
		}
	}
	return false
}

// reason gives the words of t.Skip.
func reason(output []string) string {
	for _, text := range output {
		text = strings.TrimSpace(text)
		if text != "" && !strings.HasPrefix(text, "---") && !strings.HasPrefix(text, "===") {
			return text
		}
	}
	return "no reason given"
}

// count counts the tests without subtests. One that never ended was running
// when its package died.
func (s *summary) count() {
	for _, k := range s.order {
		switch s.result[k] {
		case "pass":
			if !s.parent[k] {
				s.passed++
			}
		case "skip":
			s.skipped++
		case "fail":
			if !s.parent[k] || !s.childFailed(k) {
				s.failed++
			}
		default:
			fmt.Printf("FAIL %s %s did not end\n", k.pkg, k.test)
			s.failed++
		}
	}
}

func (s *summary) childFailed(parent key) bool {
	for k, result := range s.result {
		if k.pkg == parent.pkg && strings.HasPrefix(k.test, parent.test+"/") && result == "fail" {
			return true
		}
	}
	return false
}
