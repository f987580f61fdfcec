// Package servertest starts the real server, as a process with real sandboxes,
// for tests of what only a whole installation can show.
//
//	func TestMain(m *testing.M) { servertest.Main(m) }
//
//	s := servertest.Start(t, servertest.DataDir(t))
//	sb, err := s.CreateSandbox(ctx, v1.CreateSandbox{})
//	result, err := s.Run(ctx, sb.ID, "1 + 1")
//
// DataDir skips where sandboxes can't run; with CI=true that is a failure. What
// a server and its sandboxes hold is gone when the test ends; WantNothingLeft
// checks that.
package servertest
