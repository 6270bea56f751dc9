//go:build bench

package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
)

// constant serves an answer of a size that never changes: what recommend does, without thinking.
func (s side) constant() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	answer := append(append([]byte(`{"x":"`), bytes.Repeat([]byte("x"), max(0, s.Size-8))...), `"}`...)
	length := strconv.Itoa(len(answer))
	r := chi.NewRouter()
	r.Get("/v1/recommendations", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", length)
		_, _ = w.Write(answer) // the client is gone: nothing to do
	})
	srv := &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the parent
		_ = srv.Close()
	}()
	fmt.Println(l.Addr())
	if err := srv.Serve(l); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// startConstant runs constant until the test ends and returns its address.
func startConstant(t *testing.T, size int) string {
	t.Helper()
	cmd := side{Kind: "constant", Size: size}.command(t.Context(), t)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close() // tells it to end
		_ = cmd.Wait()    // it was told to end
	})
	addr, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(addr)
}
