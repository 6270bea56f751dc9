package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// DefaultVersion is the PostgreSQL that [Install] takes when none is named.
const DefaultVersion = "18.6.0"

// rootCacheDir is the cache of root, whose own home is closed to the user that PostgreSQL runs as.
const rootCacheDir = "/var/cache/millrace"

// Progress is told how far a long step is. done and total are bytes (1 of 1 at the end of a step that has no size); total
// is 0 while it is unknown, and the last call of a step has done == total. It is called from one goroutine at a time and must not block.
type Progress func(step string, done, total int64)

func (p Progress) report(step string, done, total int64) {
	if p != nil {
		p(step, done, total)
	}
}

// Installation is an unpacked PostgreSQL. The zero value is none.
type Installation struct {
	// Dir holds bin, lib and share.
	Dir string
	// Version is as in [InstallOptions]: "18.6.0".
	Version string
}

// Major is the major version, "18": clusters of one major version can be opened by all its minor versions.
func (i Installation) Major() string {
	major, _, _ := strings.Cut(i.Version, ".")
	return major
}

func (i Installation) program(name string) string { return filepath.Join(i.Dir, "bin", name) }

func (i Installation) present() bool {
	for _, name := range []string{"initdb", "postgres"} {
		if info, err := os.Stat(i.program(name)); err != nil || info.IsDir() {
			return false
		}
	}
	return true
}

// InstallOptions say which PostgreSQL is wanted and where it may come from. The zero value is usable.
type InstallOptions struct {
	// Version is three numbers, "18.6.0"; empty means [DefaultVersion].
	Version string
	// CacheDir keeps unpacked binaries; empty means [DefaultCacheDir].
	CacheDir string
	// Repository is the address of a Maven repository that has the binaries, for mirrors and closed networks. Empty
	// means the public one.
	Repository string
	// Progress may be nil.
	Progress Progress
	// Logger may be nil: nothing is logged.
	Logger *slog.Logger
}

// DefaultCacheDir is the directory for binaries of the user who runs this process: one that everybody can read for
// root, "millrace" in the user's own cache for others.
func DefaultCacheDir() (string, error) {
	if os.Geteuid() == 0 {
		return rootCacheDir, nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache directory for the PostgreSQL binaries (%w): name one in the settings", err)
	}
	return filepath.Join(dir, "millrace"), nil
}

// Install returns the wanted PostgreSQL from the cache, fetching it first when it is not there. With a filled cache it
// needs neither network nor write access. Any number of processes may call it at once: one fetches, the others wait.
func Install(ctx context.Context, o InstallOptions) (Installation, error) {
	if o.Version == "" {
		o.Version = DefaultVersion
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.CacheDir == "" {
		dir, err := DefaultCacheDir()
		if err != nil {
			return Installation{}, err
		}
		o.CacheDir = dir
	}
	cache, err := filepath.Abs(o.CacheDir)
	if err != nil {
		return Installation{}, fmt.Errorf("cache directory %s: %w", o.CacheDir, err)
	}
	o.CacheDir = cache
	platform, err := platformName()
	if err != nil {
		return Installation{}, err
	}
	inst := Installation{Dir: filepath.Join(cache, "postgres-"+o.Version+"-"+platform), Version: o.Version}
	if inst.present() {
		return inst, nil
	}
	if err := fill(ctx, o, inst, platform); err != nil {
		return Installation{}, fmt.Errorf("PostgreSQL %s for %s could not be installed in %s: %w%s",
			o.Version, platform, cache, err, hint(err.Error()))
	}
	return inst, nil
}

// fill puts the installation in place under a lock, so that of many processes one fetches.
func fill(ctx context.Context, o InstallOptions, inst Installation, platform string) error {
	if err := makeOpenDir(o.CacheDir); err != nil {
		return err
	}
	lock, err := waitLock(ctx, inst.Dir+".lock")
	if err != nil {
		return err
	}
	defer lock.release()
	if inst.present() {
		return nil // another process was faster
	}
	begin := time.Now()
	o.Logger.Info("fetching PostgreSQL, once for this machine", "version", o.Version, "platform", platform)
	jar, err := fetch(ctx, o, platform)
	if err != nil {
		return err
	}
	tmp := inst.Dir + ".unpacking" // ours alone under the lock; what a killed process left is removed
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	defer os.RemoveAll(tmp) // does nothing after the rename
	if err := makeOpenDir(tmp); err != nil {
		return err
	}
	if err := unpackJar(jar, tmp, o.Progress); err != nil {
		return err
	}
	syscall.Sync() // the directory's name promises whole files, even after a power cut
	// A directory without the programs is a damaged installation: it goes.
	if err := os.RemoveAll(inst.Dir); err != nil {
		return err
	}
	if err := os.Rename(tmp, inst.Dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	o.Logger.Info("PostgreSQL is installed", "version", o.Version, "dir", inst.Dir, "took", time.Since(begin))
	return nil
}

// platformName is the ending of the artefact's name for this machine.
func platformName() (string, error) {
	arch := runtime.GOARCH
	switch arch {
	case "amd64":
	case "arm64":
		arch = "arm64v8"
	default:
		return "", fmt.Errorf("there are no PostgreSQL binaries for %s/%s: use a server of your own", runtime.GOOS, arch)
	}
	if runtime.GOOS == "linux" {
		if _, err := os.Stat("/etc/alpine-release"); err == nil {
			arch += "-alpine" // its C library is another one
		}
	}
	return runtime.GOOS + "-" + arch, nil
}
