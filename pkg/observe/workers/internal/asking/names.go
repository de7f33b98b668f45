package asking

import (
	"fmt"
	"slices"
	"strings"
)

// maxNamed bounds the workers that an error names.
const maxNamed = 5

// Names lists the first few of some workers, and says how many more there are. They are
// sorted in place.
func Names(nodes []string) string {
	slices.Sort(nodes)
	nodes = slices.Compact(nodes)
	if len(nodes) <= maxNamed {
		return strings.Join(nodes, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(nodes[:maxNamed], ", "), len(nodes)-maxNamed)
}
