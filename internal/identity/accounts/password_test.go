package accounts

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
)

func TestHashIsComparedAndMadeStronger(t *testing.T) {
	old := HashOptions{Time: 1, Memory: 64}
	old.setDefaults()
	next := HashOptions{Time: 2, Memory: 128}
	next.setDefaults()
	kept, err := newHasher(old).hash(t.Context(), "secret")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name       string
		opts       HashOptions
		kept, try  string
		good, weak bool
	}{
		{"the password", old, kept, "secret", true, false},
		{"another", old, kept, "Secret", false, false},
		{"with less work than today", next, kept, "secret", true, true},
		{"nobody", old, "", "", false, false},
	} {
		if good, weak, err := newHasher(tt.opts).matches(t.Context(), tt.kept, tt.try); good != tt.good || err != nil || weak != tt.weak {
			t.Errorf("%s: %v %v %v", tt.name, good, weak, err)
		}
	}
	for _, bad := range []string{"x", "$argon2id$v=19$m=64,t=1,p=1$AA$AA", "$argon2id$v=19$m=99999999,t=1,p=1$AA$AA", "$argon2id$v=19$m=64,t=0,p=1$AA$AA", "$2a$10$x"} {
		if _, _, err := newHasher(old).matches(t.Context(), bad, "x"); err == nil {
			t.Errorf("%q is taken for a hash", bad)
		}
	}
}

func TestHashesWaitInABoundedLine(t *testing.T) {
	opts := HashOptions{Time: 1, Memory: 64, AtOnce: 1, Queue: 1}
	h := newHasher(opts)
	turn := func(ctx context.Context) (func(), error) {
		leave, err := h.enter()
		if err != nil {
			return nil, err
		}
		done, err := h.turn(ctx)
		if err != nil {
			leave()
			return nil, err
		}
		return func() { done(); leave() }, nil
	}
	done, err := turn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	second := make(chan error)
	go func() {
		_, err := turn(ctx)
		second <- err
	}()
	for len(h.line) < 2 { // it waits
		time.Sleep(time.Millisecond)
	}
	if _, err := turn(t.Context()); errdefs.CodeOf(err) != "sign-in-busy" {
		t.Errorf("beyond the line: %v", err)
	}
	cancel()
	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("who leaves the line: %v", err)
	}
	done()
	if len(h.line)+len(h.slots) != 0 {
		t.Error("places are not given back")
	}
}

// A sign-in of nobody costs what one of somebody costs.
func BenchmarkHash(b *testing.B) {
	for name, opts := range map[string]HashOptions{"default": {}, "19MiB-2": {Time: 2, Memory: 19 << 10}, "64MiB-3": {Time: 3, Memory: 64 << 10}, "46MiB-1": {Time: 1, Memory: 46 << 10}} {
		opts.setDefaults()
		h := newHasher(opts)
		kept, _ := h.hash(b.Context(), "secret")
		for who, kept := range map[string]string{"somebody": kept, "nobody": ""} {
			b.Run(name+"/"+who, func(b *testing.B) {
				for b.Loop() {
					_, _, _ = h.matches(b.Context(), kept, "wrong") // none
				}
			})
		}
	}
}
