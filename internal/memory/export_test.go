package memory

import "io/fs"

// CgroupLimitOf is CgroupLimit for a file system of the test's.
func CgroupLimitOf(root fs.FS) int64 { return cgroupLimit(root) }
