package realparts

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// apicurioVersion is the newest that runs on Java 17.
const apicurioVersion = "2.6.13.Final"

// Registry is an Apicurio schema registry that keeps everything in memory.
type Registry struct {
	// URL is the address of the Confluent API, without a slash at the end.
	URL string

	dir     string
	process *process
}

// StartApicurio starts a registry on 127.0.0.1 and returns when it is ready, at most two minutes later. The first call
// copies it into the cache (140 MB). Its compatibility level is NONE until a subject's is set. The error is a
// *MissingError where Java or Maven is missing or the registry cannot be had. ctx bounds the start, not the life of
// the registry: Close it.
func StartApicurio(ctx context.Context) (*Registry, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	app, err := apicurioApp(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "millrace-registry-")
	if err != nil {
		return nil, fmt.Errorf("make the directory of the registry: %w", err)
	}
	r := &Registry{dir: dir}
	// The port was free when it was chosen; if another process was faster, choose again.
	for range 3 {
		if err = r.start(ctx, app); err == nil || !strings.Contains(err.Error(), "in use") {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Close kills the registry and all that it knew.
func (r *Registry) Close() error {
	if r.process != nil {
		r.process.kill()
	}
	if err := os.RemoveAll(r.dir); err != nil {
		return fmt.Errorf("remove the directory of the registry: %w", err)
	}
	return nil
}

func (r *Registry) start(ctx context.Context, app string) error {
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	address := "http://127.0.0.1:" + strconv.Itoa(ports[0])
	cmd := exec.Command("java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-Dquarkus.http.host=127.0.0.1", "-Dquarkus.http.port="+strconv.Itoa(ports[0]),
		"-jar", filepath.Join(app, "apicurio-registry-app-"+apicurioVersion+"-runner.jar"))
	cmd.Dir = r.dir
	if r.process, err = startProcess("Apicurio "+apicurioVersion, filepath.Join(r.dir, "log"), cmd); err != nil {
		return err
	}
	if err := r.process.ready(ctx, func(ctx context.Context) error { return getOK(ctx, address+"/health/ready") }); err != nil {
		r.process.kill()
		return err
	}
	r.URL = address + "/apis/ccompat/v7"
	return nil
}

func getOK(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return nil
}

// apicurioApp returns the directory of the unpacked registry.
func apicurioApp(ctx context.Context) (string, error) {
	const part = "Apicurio " + apicurioVersion
	if err := need(part, kafkaInstall, "java"); err != nil {
		return "", err
	}
	return cached(ctx, "apicurio-"+apicurioVersion, func(ctx context.Context, dir string) error {
		tmp, err := os.MkdirTemp("", "apicurio-")
		if err != nil {
			return fmt.Errorf("make a directory for the download of %s: %w", part, err)
		}
		defer os.RemoveAll(tmp)
		err = maven(ctx, part, tmp, "org.apache.maven.plugins:maven-dependency-plugin:3.6.0:copy",
			"-Dartifact=io.apicurio:apicurio-registry-app:"+apicurioVersion+":tar.gz:all", "-DoutputDirectory="+tmp)
		if err != nil {
			return err
		}
		return unpack(filepath.Join(tmp, "apicurio-registry-app-"+apicurioVersion+"-all.tar.gz"), dir)
	})
}

// unpack writes the directories and regular files of a gzipped tar archive under dir, and nothing outside it.
func unpack(archive, dir string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("unpack %s: %w", filepath.Base(archive), err)
		}
	}()
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := unpackEntry(root, h, t); err != nil {
			return err
		}
	}
}

func unpackEntry(root *os.Root, h *tar.Header, content io.Reader) error {
	name := filepath.Clean(h.Name)
	switch h.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, 0o755)
	case tar.TypeReg:
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		f, err := root.Create(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		return errors.Join(err, f.Close())
	default:
		return fmt.Errorf("%s is neither a file nor a directory", name)
	}
}
