package fair_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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

// besideABurst has ann bring a thousand, each of which takes a job's time or less, and
// has ask ask for what bob does beside them.
func besideABurst(t *testing.T, slots int, with bool, ask func(run func() time.Duration)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		q := fair.New[string](fair.Options{Slots: slots})
		run := func(owner string, takes time.Duration) time.Duration {
			asked := time.Now()
			leave, err := q.Enter(t.Context(), owner)
			if err != nil {
				t.Error(err)
				return 0
			}
			time.Sleep(takes)
			leave()
			return time.Since(asked)
		}
		var wg sync.WaitGroup
		if with {
			random := rand.New(rand.NewPCG(1, uint64(slots)))
			for range 1000 {
				takes := job - time.Duration(random.Int64N(int64(job/2)))
				wg.Go(func() { run("ann", takes) })
			}
		}
		synctest.Wait()
		ask(func() time.Duration { return run("bob", job) })
		if _, all := q.Waiting("ann"); with && all == 0 {
			t.Error("the burst was over before")
		}
		wg.Wait()
	})
}

const job = 10 * time.Millisecond

// Beside a burst of 1,000 of somebody else nobody waits more than twice as long
// as without: for each of what he asks for one after the other, at whatever
// moment, and for much that he asks for at once, but for the one job for which
// the slots are taken when he comes.
func TestABurstMakesNobodyWaitMoreThanTwiceAsLong(t *testing.T) {
	for _, slots := range []int{1, 2, 4, 8} {
		oneByOne := func(with bool) (longest time.Duration) {
			besideABurst(t, slots, with, func(run func() time.Duration) {
				for i := range 40 {
					longest = max(longest, run())
					time.Sleep(time.Duration(i) * job / 17) // he thinks
				}
			})
			return longest
		}
		if alone, beside := oneByOne(false), oneByOne(true); alone != job || beside > 2*alone {
			t.Errorf("%d slots, one after the other: %v beside a burst, %v without", slots, beside, alone)
		} else {
			t.Logf("%d slots, one after the other: at most %v beside a burst, %v without", slots, beside, alone)
		}
		for _, n := range []int{1, 5, 40} {
			atOnce := func(with bool) (whole time.Duration) {
				besideABurst(t, slots, with, func(run func() time.Duration) {
					begun := time.Now()
					var wg sync.WaitGroup
					for range n {
						wg.Go(func() { run() })
					}
					wg.Wait()
					whole = time.Since(begun)
				})
				return whole
			}
			alone, beside := atOnce(false), atOnce(true)
			if beside > 2*alone+job {
				t.Errorf("%d slots, %d at once: %v beside a burst, %v without", slots, n, beside, alone)
			}
			t.Logf("%d slots, %d at once: %v beside a burst, %v without", slots, n, beside, alone)
		}
	}
}

// Who comes again and again with one gets no more than those who wait all the
// time.
func TestNobodySavesUpTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const owners, rounds = 5, 20
		q := fair.New[string](fair.Options{Slots: 1})
		var wg sync.WaitGroup
		var got [owners + 1]atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		run := func(i int) error {
			leave, err := q.Enter(ctx, fmt.Sprint(i))
			if err == nil {
				got[i].Add(1)
				time.Sleep(job)
				leave()
			}
			return err
		}
		for i := range owners { // have many that wait
			for range 4 * rounds {
				wg.Go(func() { _ = run(i) })
			}
		}
		wg.Go(func() {
			for run(owners) == nil {
			}
		})
		time.Sleep(rounds * (owners + 1) * job)
		cancel()
		wg.Wait()
		for i := range got {
			if n := got[i].Load(); n < rounds-1 || n > rounds+1 {
				t.Errorf("owner %d of %d got %d slots in %d rounds", i, owners, n, rounds)
			}
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
