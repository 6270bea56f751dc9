package pgserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the user that PostgreSQL runs as. The zero value is the user of this process.
type account struct {
	credential *syscall.Credential
	name       string
}

// accountFor gives the account for a data directory, existing or not. Only root has a choice: whoever owns the
// directory, else an ordinary user, because PostgreSQL refuses to run as root.
func accountFor(data string) (account, error) {
	if os.Geteuid() != 0 {
		return account{}, checkOwner(data)
	}
	if uid, gid, ok := owner(data); ok && uid != 0 {
		return account{credential: &syscall.Credential{Uid: uid, Gid: gid}, name: "user " + strconv.Itoa(int(uid))}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
		if uidErr == nil && gidErr == nil && uid != 0 {
			return account{credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, name: "user " + name}, nil
		}
	}
	// An image without a user list: any number but 0 will do, and this one is nobody's everywhere.
	return account{credential: &syscall.Credential{Uid: 65534, Gid: 65534}, name: "user 65534"}, nil
}

// checkOwner refuses a cluster that another user made: PostgreSQL insists on owning its directory.
func checkOwner(data string) error {
	uid, _, ok := owner(data)
	if !ok || int(uid) == os.Geteuid() {
		return nil
	}
	return fmt.Errorf("%s belongs to user %d and this process runs as user %d: run it as the user who made it, or choose another directory",
		data, uid, os.Geteuid())
}

func owner(path string) (uid, gid uint32, ok bool) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, 0, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return st.Uid, st.Gid, true
}

// own hands a directory tree to the account.
func (a account) own(dir string) error {
	if a.credential == nil {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(a.credential.Uid), int(a.credential.Gid))
	})
}

// reaches checks that the account may walk to dir: every directory on the way must let it through. Only root's
// children can fail here, and PostgreSQL's own message would not say why.
func (a account) reaches(dir string) error {
	if a.credential == nil {
		return nil
	}
	for {
		info, err := os.Stat(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil && !a.mayPass(info) {
			return fmt.Errorf("directory %s is closed to %s, as whom PostgreSQL runs because it refuses to run as root: "+
				"choose a directory outside it, or run as an ordinary user", dir, a.name)
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return nil
		}
		dir = parent
	}
}

func (a account) mayPass(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return true
	}
	switch {
	case st.Uid == a.credential.Uid:
		return info.Mode()&0o100 != 0
	case st.Gid == a.credential.Gid:
		return info.Mode()&0o010 != 0
	}
	return info.Mode()&0o001 != 0
}
