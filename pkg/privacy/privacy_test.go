package privacy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pkg/config"
)

func keys(t *testing.T) *Keys {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sub", "key")
	if wrote, err := InitKeyFile(path, 0o600); err != nil || !wrote {
		t.Fatal(wrote, err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if wrote, err := InitKeyFile(path, 0o600); err != nil || wrote {
		t.Fatal("a second init wrote again", err)
	}
	k, err := NewKeys(Config{Key: config.Secret(strings.TrimSpace(string(before)))})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestTokens(t *testing.T) {
	a, b := keys(t), keys(t)
	one := a.Token("ada@example.org")
	if one != a.Token("ada@example.org") || one == a.Token("bob@example.org") || one == b.Token("ada@example.org") {
		t.Fatal("tokens must be stable, distinct and keyed")
	}
	for _, disguised := range []string{one, "tok_" + a.ID() + "_ada@example.org"} {
		if got := a.Token(disguised); got == disguised || strings.Contains(got, "ada") {
			t.Fatalf("%q passed as %q: whoever writes a token's beginning is trusted", disguised, got)
		}
	}
	if strings.Contains(one, "ada") || a.Token("") != "" || !strings.HasPrefix(one, "tok_"+a.ID()+"_") {
		t.Fatal(one)
	}
}

func TestSealing(t *testing.T) {
	k := keys(t)
	s, err := k.Seal([]byte("payload"), "id-1")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.Open(s, "id-1"); err != nil || string(got) != "payload" {
		t.Fatal(got, err)
	}
	if _, err := k.Open(s, "id-2"); err == nil {
		t.Fatal("opened under another context")
	}
	if _, err := keys(t).Open(s, "id-1"); err == nil {
		t.Fatal("opened with another key")
	}
	s.Body[len(s.Body)-1] ^= 1
	if _, err := k.Open(s, "id-1"); err == nil {
		t.Fatal("opened after a change")
	}
}

func TestBadKeys(t *testing.T) {
	for _, bad := range []config.Secret{"", "abc", config.Secret(strings.Repeat("zz", 32)), config.Secret(strings.Repeat("00", 31))} {
		if _, err := NewKeys(Config{Key: bad}); err == nil {
			t.Errorf("%d letters were accepted", len(bad))
		} else if bad != "" && strings.Contains(err.Error(), bad.Reveal()) {
			t.Error("the error shows the key")
		}
	}
}
