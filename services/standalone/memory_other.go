//go:build !linux

package standalone

// resident is not told by this system.
func resident(int) int64 { return 0 }

func residentTree(int) int64 { return 0 }
