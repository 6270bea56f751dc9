package pgserver

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
	"github.com/xi2/xz"
)

const (
	artefactGroup = "io.zonky.test.postgres"
	// maxDownload bounds what is read into memory; the archives are 10 to 20 MB.
	maxDownload     = 256 << 20
	downloadTimeout = 10 * time.Minute
	downloadTries   = 3
)

// fetch gives the archive: from the repository over HTTP, else through the Maven client when there is one, which knows
// the mirrors and credentials of the user's own settings.
func fetch(ctx context.Context, o InstallOptions, platform string) ([]byte, error) {
	repository := o.Repository
	if repository == "" {
		repository = libraryRepository()
	}
	var direct error
	if repository == "" {
		direct = errors.New("no repository is known: name one in the settings")
	} else {
		jar, err := download(ctx, repository, o.Version, platform, o.Progress)
		if err == nil {
			return jar, nil
		}
		direct = err
	}
	if ctx.Err() != nil {
		return nil, direct
	}
	jar, err := fetchByMaven(ctx, o.CacheDir, o.Version, platform)
	if err != nil {
		return nil, fmt.Errorf("%w; %w; name a reachable repository in the settings, or copy a filled cache directory here", direct, err)
	}
	return jar, nil
}

// libraryRepository is the address that the embedded-postgres library fetches from by default. This tree holds no
// registry addresses, so that a closed network has one place to change; the library has no way to ask for it but this.
// Empty when the library has changed: the Maven client is left then.
func libraryRepository() string {
	field := reflect.ValueOf(embeddedpostgres.DefaultConfig()).FieldByName("binaryRepositoryURL")
	if field.Kind() != reflect.String {
		return ""
	}
	return field.String()
}

func download(ctx context.Context, repository, version, platform string, progress Progress) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, downloadTimeout)
	defer cancel()
	base, err := url.Parse(repository)
	if err != nil || base.Host == "" {
		return nil, errors.New("the repository is not an address like https://host/path")
	}
	name := "embedded-postgres-binaries-" + platform
	address := base.JoinPath(strings.ReplaceAll(artefactGroup, ".", "/"), name, version, name+"-"+version+".jar")
	jar, err := getWithRetry(ctx, address, progress)
	if err != nil {
		return nil, err
	}
	sumAddress := *address
	sumAddress.Path += ".sha256"
	published, err := getWithRetry(ctx, &sumAddress, nil)
	var status *statusError
	if errors.As(err, &status) && status.code == http.StatusNotFound {
		return jar, nil // some mirrors do not carry checksums; the archive format has its own
	}
	if err != nil {
		return nil, err
	}
	want, _, _ := strings.Cut(strings.TrimSpace(string(published)), " ")
	if sum := sha256.Sum256(jar); !strings.EqualFold(hex.EncodeToString(sum[:]), want) {
		return nil, fmt.Errorf("%s: its sha256 differs from the published one, so it is not used", address.Redacted())
	}
	return jar, nil
}

// statusError is an answer other than 200.
type statusError struct {
	address string
	code    int
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s: %d %s", e.address, e.code, http.StatusText(e.code))
}

func getWithRetry(ctx context.Context, address *url.URL, progress Progress) ([]byte, error) {
	for try := 1; ; try++ {
		body, err := get(ctx, address, progress)
		var status *statusError
		final := errors.As(err, &status) && status.code < 500 && status.code != http.StatusTooManyRequests
		if err == nil || final || try == downloadTries {
			return body, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(time.Duration(try) * time.Second):
		}
	}
}

func get(ctx context.Context, address *url.URL, progress Progress) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req) // takes the proxy settings of the environment
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, &statusError{address: address.Redacted(), code: resp.StatusCode}
	}
	var body bytes.Buffer
	counted := &progressReader{r: resp.Body, step: "download PostgreSQL", total: max(0, resp.ContentLength), progress: progress}
	if _, err := io.Copy(&body, io.LimitReader(counted, maxDownload+1)); err != nil {
		return nil, fmt.Errorf("%s: %w", address.Redacted(), err)
	}
	if body.Len() > maxDownload {
		return nil, fmt.Errorf("%s: longer than %d MB, so not what was asked for", address.Redacted(), maxDownload>>20)
	}
	counted.finish()
	return body.Bytes(), nil
}

// fetchByMaven asks the Maven client, which keeps its own cache and checks checksums.
func fetchByMaven(ctx context.Context, dir, version, platform string) ([]byte, error) {
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return nil, errors.New("there is no Maven client (mvn) either")
	}
	tmp, err := os.MkdirTemp(dir, "maven-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	artefact := fmt.Sprintf("%s:embedded-postgres-binaries-%s:%s", artefactGroup, platform, version)
	cmd := exec.CommandContext(ctx, mvn, "-q", "-B", "dependency:copy", "-Dartifact="+artefact, "-DoutputDirectory="+tmp)
	cmd.Dir = tmp
	if out, err := cmd.CombinedOutput(); err != nil {
		first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n") // the rest is advice on Maven
		return nil, fmt.Errorf("the Maven client could not fetch %s: %w: %s", artefact, err, first)
	}
	jars, err := filepath.Glob(filepath.Join(tmp, "*.jar"))
	if err != nil || len(jars) != 1 {
		return nil, fmt.Errorf("the Maven client left %d files for %s", len(jars), artefact)
	}
	return os.ReadFile(jars[0])
}

// unpackJar unpacks the one tar.xz inside the jar into dir.
func unpackJar(jar []byte, dir string, progress Progress) error {
	z, err := zip.NewReader(bytes.NewReader(jar), int64(len(jar)))
	if err != nil {
		return fmt.Errorf("the fetched file is no archive (an error page of a proxy?): %w", err)
	}
	for _, f := range z.File {
		if !strings.HasSuffix(f.Name, ".txz") {
			continue
		}
		r, err := f.Open()
		if err != nil {
			return err
		}
		defer r.Close()
		packed := &progressReader{r: r, step: "unpack PostgreSQL", total: int64(f.UncompressedSize64), progress: progress}
		x, err := xz.NewReader(packed, 0)
		if err != nil {
			return fmt.Errorf("%s in the archive: %w", f.Name, err)
		}
		if err := untar(tar.NewReader(x), dir); err != nil {
			return fmt.Errorf("%s in the archive: %w", f.Name, err)
		}
		packed.finish()
		return nil
	}
	return errors.New("the fetched archive holds no .txz")
}

// progressReader reports what is read through it, at most once for each per cent.
type progressReader struct {
	r           io.Reader
	step        string
	done, total int64
	told        int64
	progress    Progress
}

func (p *progressReader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.done += int64(n)
	if p.done-p.told >= max(64<<10, p.total/100) {
		p.told = p.done
		p.progress.report(p.step, p.done, p.total)
	}
	return n, err
}

func (p *progressReader) finish() { p.progress.report(p.step, p.done, p.done) }
