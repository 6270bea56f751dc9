package realparts

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// axeVersion is the version of axe-core that pages are checked with.
const axeVersion = "4.14.1"

// AxeFile returns the path of axe.min.js, the accessibility checker that a test evaluates in a page. The first call
// gets it with the npm client. The error is a *MissingError where npm is missing or the package cannot be had.
func AxeFile(ctx context.Context) (string, error) {
	const part = "axe-core " + axeVersion
	dir, err := cached(ctx, "axe-core-"+axeVersion, func(ctx context.Context, dir string) error {
		if err := need(part, "Node.js with npm (Debian: apt-get install npm; macOS: brew install node)", "npm"); err != nil {
			return err
		}
		tmp, err := os.MkdirTemp("", "axe-")
		if err != nil {
			return fmt.Errorf("make a directory for the download of %s: %w", part, err)
		}
		defer os.RemoveAll(tmp)
		cmd := exec.CommandContext(ctx, "npm", "pack", "--silent", "--pack-destination", tmp, "axe-core@"+axeVersion)
		cmd.Dir = tmp
		if out, err := cmd.CombinedOutput(); err != nil {
			return &MissingError{Part: part, Install: "let npm reach a registry (see its .npmrc), then run again",
				Err: fmt.Errorf("npm pack: %w\n%s", err, out)}
		}
		return unpack(filepath.Join(tmp, "axe-core-"+axeVersion+".tgz"), dir)
	})
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "package", "axe.min.js"), nil
}

// ChromiumFile returns the path of a Chromium or Google Chrome. The error is a *MissingError where none is installed.
func ChromiumFile() (string, error) {
	names := []string{
		"chromium", "chromium-browser", "google-chrome", "google-chrome-stable",
		"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome", "/Applications/Chromium.app/Contents/MacOS/Chromium",
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", &MissingError{Part: "Chromium", Install: "Debian: apt-get install --no-install-recommends chromium; macOS: brew install --cask chromium",
		Err: fmt.Errorf("none of these was found: %s", strings.Join(names, ", "))}
}
