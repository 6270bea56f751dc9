package pgserver

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// tinyTxz holds bin/initdb, bin/postgres and the symbolic link bin/postmaster.
const tinyTxz = "/Td6WFoAAATm1rRGAgAhARYAAAB0L+Wj4Cf/AKNdADEaShsFkZA3OlG9V3Gz1uQT2IkQonAbexNN15tic70r6rNJbkVqC6RLQH2665UL531xp7xGLwZq179p6v9KnhgaTdAJqvTXDclQ2G2eOX9oF6EP+IuEAnOCDA5p4MW2xbYJ+57C/CXj4TVqlpolHpLBfEUIhv8II7WXFc1GJ6FL0/zArdHT30qAsZKb6ZGsmOzC1/WEIC1VNCM+W1MJRkAfugAAAFKSilMgIauSAAG/AYBQAABGxEyUscRn+wIAAAAABFla"

func tinyJar(t *testing.T) []byte {
	t.Helper()
	txz, err := base64.StdEncoding.DecodeString(tinyTxz)
	if err != nil {
		t.Fatal(err)
	}
	var jar bytes.Buffer
	z := zip.NewWriter(&jar)
	w, err := z.Create("postgres-linux-x86_64.txz")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(txz); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return jar.Bytes()
}

// repository serves one jar. sum is what it publishes as its checksum, "" for a 404; the first failures answers are 503.
type repository struct {
	*httptest.Server
	jars atomic.Int64
}

func newRepository(t *testing.T, jar []byte, sum string, failures int64) *repository {
	r := &repository{}
	var asked atomic.Int64
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch {
		case asked.Add(1) <= failures:
			w.WriteHeader(http.StatusServiceUnavailable)
		case strings.HasSuffix(req.URL.Path, ".jar"):
			r.jars.Add(1)
			_, _ = w.Write(jar)
		case sum == "":
			w.WriteHeader(http.StatusNotFound)
		default:
			_, _ = w.Write([]byte(sum))
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func sumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func TestLibraryKnowsARepository(t *testing.T) {
	u, err := url.Parse(libraryRepository())
	if err != nil || u.Scheme != "https" || u.Host == "" {
		t.Errorf("the library's default configuration gives %q: its field has changed, see libraryRepository", libraryRepository())
	}
}

func TestInstallOnceThenOffline(t *testing.T) {
	jar := tinyJar(t)
	repo := newRepository(t, jar, sumOf(jar), 0)
	cache := t.TempDir()
	var steps sync.Map
	o := InstallOptions{CacheDir: cache, Repository: repo.URL, Progress: func(step string, done, total int64) {
		if done == total {
			steps.Store(step, done)
		}
	}}
	platform, err := platformName()
	if err != nil {
		t.Skipf("SKIPPED: %v", err)
	}
	// What a process that was killed while unpacking leaves behind, and an installation that lost its programs.
	for _, dir := range []string{".unpacking", ""} {
		if err := os.MkdirAll(filepath.Join(cache, "postgres-"+DefaultVersion+"-"+platform+dir, "bin", "junk"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			inst, err := Install(t.Context(), o)
			if err != nil {
				t.Error(err)
				return
			}
			if b, err := os.ReadFile(inst.program("postmaster")); err != nil || string(b) != "postgres\n" {
				t.Errorf("the link to postgres reads %q: %v", b, err)
			}
		})
	}
	wg.Wait()
	if n := repo.jars.Load(); n != 1 {
		t.Errorf("downloaded %d times, want once", n)
	}
	for _, step := range []string{"download PostgreSQL", "unpack PostgreSQL"} {
		if _, ok := steps.Load(step); !ok {
			t.Errorf("step %q never reported its end", step)
		}
	}
	repo.Close()
	inst, err := Install(t.Context(), o)
	if err != nil {
		t.Fatalf("offline with a filled cache: %v", err)
	}
	if _, err := os.Stat(filepath.Join(inst.Dir, "bin", "junk")); err == nil {
		t.Error("the damaged installation was unpacked over, not replaced")
	}
}

func TestDownload(t *testing.T) {
	jar := tinyJar(t)
	for name, test := range map[string]struct {
		sum      string
		failures int64
		wantErr  string
	}{
		"right checksum":              {sum: sumOf(jar)},
		"checksum with a file name":   {sum: strings.ToUpper(sumOf(jar)) + "  x.jar\n"},
		"no checksum published":       {},
		"wrong checksum":              {sum: sumOf([]byte("x")), wantErr: "sha256 differs"},
		"repository busy for a while": {sum: sumOf(jar), failures: 1},
	} {
		t.Run(name, func(t *testing.T) {
			repo := newRepository(t, jar, test.sum, test.failures)
			got, err := download(t.Context(), repo.URL+"/maven2/", "18.6.0", "linux-amd64", nil)
			if test.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantErr) {
					t.Errorf("got error %v, want one with %q", err, test.wantErr)
				}
				return
			}
			if err != nil || !bytes.Equal(got, jar) {
				t.Errorf("got %d bytes, error %v", len(got), err)
			}
		})
	}
}

func TestDownloadErrorsHideTheRepositorysPassword(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	address := strings.Replace(server.URL, "http://", "http://me:secret@", 1)
	_, err := download(t.Context(), address, "18.6.0", "linux-amd64", nil)
	if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "404") {
		t.Errorf("got %v, want a 404 without the password", err)
	}
	if _, err := download(t.Context(), "no address", "18.6.0", "linux-amd64", nil); err == nil {
		t.Error("a repository without a host is taken")
	}
}

func TestUnpackRefusesWhatIsNoArchive(t *testing.T) {
	if err := unpackJar([]byte("<html>log in</html>"), t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), "proxy") {
		t.Errorf("got %v, want a hint at an error page", err)
	}
	var empty bytes.Buffer
	if err := zip.NewWriter(&empty).Close(); err != nil {
		t.Fatal(err)
	}
	if err := unpackJar(empty.Bytes(), t.TempDir(), nil); err == nil {
		t.Error("an archive without a .txz is taken")
	}
}

func TestUntarStaysInItsDirectory(t *testing.T) {
	for _, name := range []string{"../escaped", "/escaped", "a/../../escaped"} {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		parent := t.TempDir()
		dir := filepath.Join(parent, "in")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := untar(tar.NewReader(&buf), dir); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := os.Stat(filepath.Join(parent, "escaped")); err == nil {
			t.Errorf("%s was written outside", name)
		}
	}
}

func TestWaitLockEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	held, err := tryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := waitLock(ctx, path); err == nil {
		t.Error("the lock was given twice")
	}
	held.release()
	again, err := tryLock(path)
	if err != nil {
		t.Fatalf("after the release: %v", err)
	}
	again.release()
}

func TestHintSaysWhatToDo(t *testing.T) {
	for text, want := range map[string]string{
		"could not write: No space left on device": "free some space",
		"mkdir /x: permission denied":              "permissions",
		"open /x: read-only file system":           "another one",
		"something else":                           "",
	} {
		if got := hint(text); !strings.Contains(got, want) || (want == "") != (got == "") {
			t.Errorf("hint(%q) = %q, want %q in it", text, got, want)
		}
	}
}
