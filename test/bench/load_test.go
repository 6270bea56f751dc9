//go:build bench

package bench

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// caller is one HTTP/1.1 connection that is kept open. It costs much less than net/http's client: what is measured
// shares the machine with it.
type caller struct {
	conn net.Conn
	in   *bufio.Reader
}

func dial(t testing.TB, addr string, n int) []*caller {
	t.Helper()
	out := make([]*caller, 0, n)
	t.Cleanup(func() {
		for _, c := range out {
			_ = c.conn.Close() // the other side may have
		}
	})
	for range n {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatalf("connection %d: %v", len(out)+1, err)
		}
		out = append(out, &caller{conn: conn, in: bufio.NewReaderSize(conn, 2048)})
	}
	return out
}

// request is the bytes of a GET.
func request(addr, path string) []byte {
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: application/json\r\n\r\n", path, addr)
}

// do sends a request and reads the answer's size.
func (c *caller) do(req []byte) (size int, err error) {
	if _, err := c.conn.Write(req); err != nil {
		return 0, err
	}
	status, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	ok := bytes.HasPrefix(status, []byte("HTTP/1.1 2"))
	size, chunked := -1, false
	if !ok {
		err = fmt.Errorf("answer %q", bytes.TrimSpace(status))
	}
	for {
		line, rerr := c.in.ReadSlice('\n')
		if rerr != nil {
			return 0, rerr
		}
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(": "))
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			size, _ = strconv.Atoi(string(value))
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = true
		}
	}
	if chunked {
		size, rerr := c.chunks()
		return size, errors.Join(err, rerr)
	}
	if size < 0 {
		return 0, errors.New("an answer without a length")
	}
	_, rerr := io.CopyN(io.Discard, c.in, int64(size))
	return size, errors.Join(err, rerr)
}

func (c *caller) chunks() (total int, err error) {
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return total, err
		}
		n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 32)
		if err != nil {
			return total, err
		}
		if _, err := io.CopyN(io.Discard, c.in, n+2); err != nil {
			return total, err
		}
		if n == 0 {
			return total, nil
		}
		total += int(n)
	}
}

// flood asks as fast as the answers come, and returns requests per second.
func flood(t testing.TB, callers []*caller, requests [][]byte, d time.Duration) float64 {
	t.Helper()
	var done atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	begin := time.Now()
	for w, c := range callers {
		wg.Go(func() {
			for i := w; time.Since(begin) < d; i += len(callers) {
				if _, err := c.do(requests[i%len(requests)]); err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		t.Fatal(*err)
	}
	return float64(done.Load()) / time.Since(begin).Seconds()
}

// pace asks at a rate, over all connections in turn, and returns how long each answer took after its request was due:
// a slow answer does not hide those that wait behind it.
func pace(t testing.TB, callers []*caller, requests [][]byte, rate int, d time.Duration) []time.Duration {
	t.Helper()
	n := int(float64(rate) * d.Seconds())
	took := make([]time.Duration, n)
	idle := make(chan *caller, len(callers))
	for _, c := range callers {
		idle <- c
	}
	var failed atomic.Pointer[error]
	begin := time.Now()
	steady(t.Context(), n, rate, min(64, len(callers)), func(i int) {
		c := <-idle
		if _, err := c.do(requests[i%len(requests)]); err != nil {
			failed.CompareAndSwap(nil, &err)
		}
		took[i] = time.Since(begin.Add(time.Duration(i) * time.Second / time.Duration(rate)))
		idle <- c
	})
	if err := failed.Load(); err != nil {
		t.Fatal(*err)
	}
	return took
}
