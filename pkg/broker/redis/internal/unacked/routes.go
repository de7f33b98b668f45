package unacked

// route is where a message was published to.
type route struct{ exchange, routingKey string }

// routeID stands for a route in the memory of messages, which holds it up to a
// million times.
type routeID uint32

// The two routes that are none.
const (
	// noRoute is that of an entry from which none can be read.
	noRoute routeID = iota
	// noMessage is that of a tag in the index for which the hash has no entry.
	noMessage
	firstRoute
)

// routeTable numbers the routes in use.
type routeTable struct {
	ids  map[route]routeID
	list []route // by number
	free []routeID
}

func newRouteTable() routeTable {
	return routeTable{ids: map[route]routeID{}, list: make([]route, firstRoute)}
}

// id numbers a route.
func (t *routeTable) id(r route) routeID {
	if id, ok := t.ids[r]; ok {
		return id
	}
	id := routeID(len(t.list)) //nolint:gosec // far fewer than 2^32
	if n := len(t.free); n > 0 {
		id, t.free = t.free[n-1], t.free[:n-1]
		t.list[id] = r
	} else {
		t.list = append(t.list, r)
	}
	t.ids[r] = id
	return id
}

// release gives up the numbers of routes that no message has.
func (t *routeTable) release(counts []tally) {
	for r, id := range t.ids {
		if int(id) >= len(counts) || counts[id].held == 0 {
			delete(t.ids, r)
			t.list[id] = route{}
			t.free = append(t.free, id)
		}
	}
}

// tally counts messages.
type tally struct {
	held, scheduled int64
}

func (t tally) plus(other tally) tally {
	return tally{t.held + other.held, t.scheduled + other.scheduled}
}
