package hogstream

import "runtime/debug"

// Version is what the binary calls itself: the module's version when it was
// installed as a module, else "dev".
var Version = buildVersion()

func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}
