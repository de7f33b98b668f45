package management

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

const (
	// pageSize is the largest page that the API gives
	// (rabbit_mgmt_util.erl, MAX_PAGE_SIZE).
	pageSize = 500
	// maxFilter bounds the filter as it stands in the URL, in bytes: the server
	// takes 8,000 for the whole first line of a request (cowboy_http.erl,
	// max_request_line_length).
	maxFilter = 4000
	// delayed matches the queues of native delayed delivery, which are read
	// whatever else is.
	delayed = `(.*_)?celery_delayed_[0-9]+`
)

// filterFor makes the server send the queues of these names alone. It is nil if
// all are wanted, or if they are so many that all are cheaper: the server counts
// every queue of the virtual host for each page.
func filterFor(names []string) url.Values {
	if len(names) == 0 || len(names) >= pageSize {
		return nil
	}
	patterns := []string{delayed}
	for _, name := range names {
		patterns = append(patterns, quote(name))
	}
	pattern := "^(" + strings.Join(patterns, "|") + ")$"
	if len(url.QueryEscape(pattern)) > maxFilter {
		return nil
	}
	return url.Values{"name": {pattern}, "use_regex": {"true"}, "page_size": {strconv.Itoa(pageSize)}}
}

// quote makes a name match itself in a regular expression of PCRE: there, a
// backslash before an ASCII character that is no letter or digit takes away its
// meaning, bytes beyond ASCII have none, and control characters can be written as
// numbers. A newline at the end would match "$" too; the filter may let pass more
// than is wanted.
func quote(name string) string {
	var out strings.Builder
	for i := range len(name) {
		b := name[i]
		isWord := b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= 0x80
		switch {
		case b < ' ':
			fmt.Fprintf(&out, `\x%02x`, b)
		case isWord:
			out.WriteByte(b)
		default:
			out.Write([]byte{'\\', b})
		}
	}
	return out.String()
}
