// Command issuer is a provider of OpenID Connect for the page's browser tests:
// the one of internal/identity/identitytest, on a socket of loopback.
//
// It prints its address. Each line that it reads says who signs in next, as
// {"claims": {…}, "info": {…}}, and is answered by a line; {} lets nobody in.
// It ends with its input.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/caesarion/caesarion/internal/identity/identitytest"
)

// process stands in for a test, whose end is that of the process.
type process struct{ testing.TB }

func (process) Helper() {}

func (process) Cleanup(func()) {}

func (process) Fatal(args ...any) {
	fmt.Fprintln(os.Stderr, args...)
	os.Exit(1)
}

func main() {
	issuer := identitytest.New(process{})
	fmt.Println(issuer.URL)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var next struct{ Claims, Info map[string]any }
		if err := json.Unmarshal(lines.Bytes(), &next); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		issuer.Next(next.Claims, next.Info)
		fmt.Println("ok")
	}
}
