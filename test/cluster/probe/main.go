// Command probe is what test pods run: one static binary that serves, asks,
// wastes memory or ends, and the process that holds a pod's namespaces.
//
//	probe                 an HTTP server on :8080
//	probe get URL         asks once, within three seconds
//	probe dial ADDRESS    opens a TCP connection, within three seconds
//	probe hog             takes memory until it is killed
//	probe exit STATUS     ends
//	probe pause           waits, and reaps
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// once bounds a question.
const once = 3 * time.Second

func main() {
	args := append(os.Args[1:], "", "")
	switch args[0] {
	case "pause":
		pause()
	case "get":
		answer(get(args[1]))
	case "dial":
		c, err := net.DialTimeout("tcp", args[1], once)
		if err == nil {
			_ = c.Close()
		}
		answer("connected", err)
	case "hog":
		hog()
	case "exit":
		status, _ := strconv.Atoi(args[1])
		fmt.Println("exiting", status)
		os.Exit(status)
	default:
		serve()
	}
}

func answer(text string, err error) {
	if err != nil {
		fmt.Println("ERR", err)
		os.Exit(1)
	}
	fmt.Println(text)
}

func get(url string) (string, error) {
	client := http.Client{Timeout: once}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 512))
	return resp.Status + " " + string(body), err
}

func serve() {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGINT, syscall.SIGTERM)
	go func() { <-end; os.Exit(0) }()
	host, _ := os.Hostname()
	handler := func(w http.ResponseWriter, r *http.Request) {
		version, _ := os.ReadFile("/proc/version")
		ip, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "hello from %s to %s on %.40s\n", host, ip, version)
	}
	fmt.Println("listening on :8080")
	answer("", http.ListenAndServe(":8080", http.HandlerFunc(handler)))
}

func hog() {
	var keep [][]byte
	for {
		b := make([]byte, 1<<20)
		for i := range b {
			b[i] = 1
		}
		keep = append(keep, b)
		runtime.KeepAlive(keep)
		time.Sleep(2 * time.Millisecond)
	}
}

// pause is pid 1 of a pod: it reaps when the pod shares its processes.
func pause() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for s := range signals {
		if s != syscall.SIGCHLD {
			return
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}
