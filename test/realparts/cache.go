package realparts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// CacheDir is where parts are kept between runs: /var/cache/millrace for root, millrace in the user's cache directory
// otherwise. Root's home is closed to the unprivileged users that servers run as, hence the difference. Entries are
// named with their versions and never change, so the directory may be removed or kept at any time.
func CacheDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/cache/millrace", nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache directory: %w", err)
	}
	return filepath.Join(dir, "millrace"), nil
}

// cached returns the cache's directory of that name, and has fill make it where it is absent.
func cached(ctx context.Context, name string, fill func(ctx context.Context, dir string) error) (string, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	return cachedIn(ctx, cache, name, fill)
}

// cachedIn is cached in a given place. Whoever finds the directory finds it whole: it is filled beside and renamed, so
// any number of test processes may start at once.
func cachedIn(ctx context.Context, cache, name string, fill func(ctx context.Context, dir string) error) (string, error) {
	dir := filepath.Join(cache, name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("make the cache: %w", err)
	}
	tmp, err := os.MkdirTemp(cache, "."+name+"-")
	if err != nil {
		return "", fmt.Errorf("make a directory in the cache: %w", err)
	}
	defer os.RemoveAll(tmp) // does nothing after the rename
	if err := fill(ctx, tmp); err != nil {
		return "", err
	}
	if err := publish(tmp); err != nil {
		return "", fmt.Errorf("make %s world-readable: %w", name, err)
	}
	if err := os.Rename(tmp, dir); err != nil && !errors.Is(err, fs.ErrExist) { // another process may have been first
		return "", fmt.Errorf("put %s into the cache: %w", name, err)
	}
	return dir, nil
}

// publish lets every user read what is under dir.
func publish(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, 0o755)
		}
		return os.Chmod(path, 0o644)
	})
}
