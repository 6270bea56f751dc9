package pgtest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

const helperVariable = "MILLRACE_PGTEST_HELPER"

// TestHelperProcess is the test process that TestKilledProcessLeavesNothing kills.
func TestHelperProcess(t *testing.T) {
	if os.Getenv(helperVariable) == "" {
		t.Skip("not a test: the helper of another")
	}
	Database(t)
	root, err := processDir()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("root %s\n", root.path)
	select {}
}

func TestKilledProcessLeavesNothing(t *testing.T) {
	get(t)
	helper := exec.Command(os.Args[0], "-test.run=^TestHelperProcess$")
	helper.Env = append(os.Environ(), helperVariable+"=1")
	out, err := helper.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := helper.Start(); err != nil {
		t.Fatal(err)
	}
	root := ""
	for lines := bufio.NewScanner(out); root == "" && lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "root %s", &root)
	}
	if _, err := os.Stat(root); err != nil {
		t.Fatalf("the helper's directory: %v", err)
	}
	if err := helper.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = helper.Wait() // "signal: killed"
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(root); os.IsNotExist(err) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still there", root)
		}
	}
}
