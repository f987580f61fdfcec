package fair_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/limits/fair"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A thousand of one owner do not hold up another: his k-th begins after at most
// k of theirs, besides those that were under way.
func TestABurstHoldsUpNobodyElse(t *testing.T) {
	for _, slots := range []int{1, 4} {
		t.Run(fmt.Sprint(slots, " slots"), func(t *testing.T) { testBurst(t, slots) })
	}
}

func testBurst(t *testing.T, slots int) {
	synctest.Test(t, func(t *testing.T) {
		const burst, few = 1000, 20
		q := fair.New[string](fair.Options{Slots: slots})
		var mu sync.Mutex
		var order []string
		start := func(owner string, wg *sync.WaitGroup) {
			wg.Go(func() {
				leave, err := q.Enter(t.Context(), owner)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				order = append(order, owner)
				mu.Unlock()
				time.Sleep(10 * time.Millisecond)
				leave()
			})
		}
		var wg sync.WaitGroup
		for range burst {
			start("ann", &wg)
		}
		synctest.Wait()
		if his, all := q.Waiting("ann"); his != burst-slots || all != his {
			t.Fatalf("%d of ann and %d of all wait, want %d", his, all, burst-slots)
		}
		for range few {
			start("bob", &wg)
		}
		wg.Wait()
		ann, bob := 0, 0
		for _, owner := range order {
			if owner == "ann" {
				ann++
				continue
			}
			bob++
			// Those that begin at one moment are noted in any order.
			if most := slots + bob + slots - 1; ann > most {
				t.Errorf("bob's %d. began after %d of ann's, want at most %d", bob, ann, most)
			}
		}
		if ann != burst || bob != few {
			t.Errorf("%d and %d began, want %d and %d", ann, bob, burst, few)
		}
	})
}

func TestWhoLeavesTheLineCostsNobodyHisTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := fair.New[string](fair.Options{Slots: 1})
		leave, err := q.Enter(t.Context(), "ann")
		if err != nil {
			t.Fatal(err)
		}
		cause := errors.New("he left")
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := make(chan error, 1)
		go func() {
			_, err := q.Enter(ctx, "bob")
			gone <- err
		}()
		got := make(chan string, 2)
		for i := range 2 {
			synctest.Wait()
			go func() {
				leave, err := q.Enter(t.Context(), "eve")
				if err != nil {
					t.Error(err)
					return
				}
				got <- fmt.Sprint("eve", i)
				leave()
			}()
		}
		synctest.Wait()
		cancel(cause)
		if err := <-gone; !errors.Is(err, cause) {
			t.Errorf("error = %v, want the cause", err)
		}
		leave()
		if a, b := <-got, <-got; a != "eve0" || b != "eve1" {
			t.Errorf("served %s, then %s", a, b)
		}
		if _, all := q.Waiting("bob"); all != 0 {
			t.Errorf("%d wait", all)
		}
	})
}

func TestLinesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := fair.New[string](fair.Options{Slots: 1, PerUser: 2, Waiting: 3})
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := q.Enter(ctx, "ann"); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		enter := func(owner string) { wg.Go(func() { _, _ = q.Enter(ctx, owner) }) }
		enter("ann")
		enter("ann")
		synctest.Wait()
		if _, err := q.Enter(ctx, "ann"); errdefs.CodeOf(err) != "too-many-waiting" || !errors.Is(err, errdefs.ErrExhausted) {
			t.Errorf("error = %v", err)
		}
		enter("bob")
		synctest.Wait()
		if _, err := q.Enter(ctx, "bob"); errdefs.CodeOf(err) != "too-many-waiting" {
			t.Errorf("error = %v", err)
		}
		cancel()
		wg.Wait()
		if _, all := q.Waiting("ann"); all != 0 {
			t.Errorf("%d wait", all)
		}
	})
}

func TestSlotsAreNeverMoreNorLost(t *testing.T) {
	const slots = 3
	q := fair.New[int](fair.Options{Slots: slots})
	var under, most atomic.Int64
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			for j := range 50 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i*j%7)*100*time.Microsecond+time.Microsecond)
				if leave, err := q.Enter(ctx, i%5); err == nil {
					n := under.Add(1)
					for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
					}
					under.Add(-1)
					leave()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if most.Load() > slots {
		t.Errorf("%d were under way at once, of %d slots", most.Load(), slots)
	}
	for range slots {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if _, err := q.Enter(ctx, 1); err != nil {
			t.Errorf("a slot is lost: %v", err)
		}
		cancel()
	}
}

func BenchmarkEnter(b *testing.B) {
	q := fair.New[string](fair.Options{})
	for b.Loop() {
		leave, _ := q.Enter(b.Context(), "ann")
		leave()
	}
}
