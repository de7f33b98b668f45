package management

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	// maxReply bounds a reply, in bytes: 200,000 queues and more.
	maxReply = 32 << 20
	// idleTimeout is for how long a connection is kept that is not used.
	idleTimeout = time.Minute
)

// Settings say where a management API is and who asks it.
type Settings struct {
	// URL is where it is, without /api. It holds no credential.
	URL string
	// Username and Password are the user's.
	Username, Password string
	// VirtualHost is the one whose queues are listed.
	VirtualHost string
	// Names are the queues of interest; none: all.
	Names []string
	// TLS is for an https URL; nil: the system's authorities.
	TLS *tls.Config
}

// Client asks one management API. It is not safe for concurrent use.
type Client struct {
	settings Settings
	http     *http.Client
	filter   url.Values
}

// New makes a client and does not connect.
func New(s Settings) *Client {
	s.URL = strings.TrimRight(s.URL, "/")
	return &Client{settings: s, filter: filterFor(s.Names), http: &http.Client{
		// A redirection would carry the credentials elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			TLSClientConfig: s.TLS, MaxConnsPerHost: 1, IdleConnTimeout: idleTimeout,
			DisableCompression: true, // it would cost the broker more than the network
			ForceAttemptHTTP2:  false,
		},
	}}
}

// Address is where the API is, for errors.
func (c *Client) Address() string { return c.settings.URL }

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// ClusterName is the name of the cluster that the API belongs to.
func (c *Client) ClusterName(ctx context.Context) (string, error) {
	body, err := c.get(ctx, "/api/cluster-name", nil)
	if err != nil {
		return "", err
	}
	defer body.Close()
	name, err := decodeClusterName(body)
	if err != nil {
		return "", c.explain(err)
	}
	return name, nil
}

// Queues lists the queues of interest, and maybe others. It blocks until all
// pages are read or ctx is done. See RefusedError for an error that says no.
func (c *Client) Queues(ctx context.Context) (map[string]Queue, error) {
	queues := map[string]Queue{}
	for page := 1; ; page++ {
		query := c.query(page)
		body, err := c.get(ctx, "/api/queues/"+url.PathEscape(c.settings.VirtualHost), query)
		if err != nil {
			return nil, err
		}
		pages, err := decodeQueues(body, queues)
		_ = body.Close()
		if err != nil {
			return nil, c.explain(err)
		}
		if page >= pages {
			return queues, nil
		}
	}
}

// query asks for the columns that are needed: the server computes all, but a
// reply of 10,000 queues is 1 MB instead of 4.
func (c *Client) query(page int) url.Values {
	query := url.Values{
		"disable_stats": {"true"}, "enable_queue_totals": {"true"},
		"columns": {"name,type,state,exclusive,messages_ready,messages_unacknowledged"},
	}
	maps.Copy(query, c.filter)
	if c.filter != nil {
		query.Set("page", fmt.Sprint(page))
	}
	return query
}

// get returns the body of a reply that is JSON, to be closed by the caller.
func (c *Client) get(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.settings.URL+path+"?"+query.Encode(), http.NoBody)
	if err != nil {
		return nil, c.explain(err)
	}
	request.SetBasicAuth(c.settings.Username, c.settings.Password)
	request.Header.Set("Accept", "application/json")
	response, err := c.http.Do(request) //nolint:bodyclose // it is closed with the body that is returned
	if err != nil {
		return nil, c.explain(err)
	}
	body := &limited{ReadCloser: response.Body, left: maxReply}
	if err := c.check(response, body); err != nil {
		_ = body.Close()
		return nil, err
	}
	return body, nil
}

// check refuses a reply that is not one of the management API.
func (c *Client) check(response *http.Response, body io.Reader) error {
	kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	isJSON := kind == "application/json"
	switch {
	case response.StatusCode == http.StatusOK && isJSON:
		return nil
	case response.StatusCode == http.StatusOK:
		return c.explain(fmt.Errorf("it answers with %q instead of JSON: is this the management API, or a log-in page or proxy before it?", kind))
	case response.StatusCode/100 == 3:
		return c.explain(fmt.Errorf("it answers %s, to somewhere else: give the URL that it leads to (rabbitmq.managementURL)", response.Status))
	}
	reason := ""
	if isJSON {
		reason = decodeReason(body)
	}
	if response.StatusCode == http.StatusBadRequest {
		c.filter = nil // a server that does not take it lists all
	}
	return c.refused(response.StatusCode, response.Status, reason)
}
