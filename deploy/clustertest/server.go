package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	namespace = "datafly"
	// patience is the longest wait for what usually takes seconds; machines are busy.
	patience = 5 * time.Minute
	// grace is what a server has to end after SIGTERM.
	grace = 10 * time.Second
)

// cluster is an API server on the loopback, without nodes.
type cluster struct {
	bin     binaries
	dir     string // certificates, data, logs
	root    string // the repository
	address string // https://127.0.0.1:port
	token   string // of the administrator
	http    *http.Client
	servers []*server
	kubelet *kubelet
	kinds   []string // of objects in a namespace
	before  []string // what the namespace has before an installation
}

// server is a process of the control plane.
type server struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{}
}

// start brings up etcd, the API server and the controllers.
func (c *cluster) start(ctx context.Context) (string, error) {
	pool, err := c.certificates()
	if err != nil {
		return "", err
	}
	c.http = &http.Client{
		Timeout:       time.Minute,
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	var ports [4]string
	for i := range ports { // all open at once, so that no two are the same
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", fmt.Errorf("finding a free port: %w", err)
		}
		defer l.Close()
		ports[i] = strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
		l.Close()
	}
	client, peer := "http://127.0.0.1:"+ports[0], "http://127.0.0.1:"+ports[1]
	c.address, c.token = "https://127.0.0.1:"+ports[2], rand.Text()
	tokens := c.token + ",admin,admin,system:masters\n"
	if err := os.WriteFile(c.file("tokens"), []byte(tokens), 0o600); err != nil {
		return "", err
	}
	if err := c.kubeconfig("admin", c.token); err != nil {
		return "", err
	}
	for _, args := range [][]string{
		{c.bin.etcd, "--data-dir", c.file("etcd"), "--name", "test", "--unsafe-no-fsync",
			"--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
			"--initial-advertise-peer-urls", peer, "--initial-cluster", "test=" + peer, "--log-level", "warn"},
		{c.bin.apiserver, "--etcd-servers", client, "--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1", "--secure-port", ports[2],
			"--tls-cert-file", c.file("tls.crt"), "--tls-private-key-file", c.file("tls.key"), "--token-auth-file", c.file("tokens"),
			"--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.0.0.0/24", "--service-account-issuer", "https://kubernetes.default.svc",
			"--service-account-key-file", c.file("tls.key"), "--service-account-signing-key-file", c.file("tls.key")},
		{c.bin.controllers, "--kubeconfig", c.file("admin"), "--bind-address", "127.0.0.1", "--secure-port", ports[3], "--leader-elect=false",
			"--service-account-private-key-file", c.file("tls.key"), "--root-ca-file", c.file("tls.crt")},
	} {
		if err := c.launch(args); err != nil {
			return "", err
		}
		if args[0] == c.bin.apiserver {
			if err := c.until(ctx, "kube-apiserver to be ready", func() error { return c.api(ctx, http.MethodGet, "/readyz", nil, nil) }); err != nil {
				return "", err
			}
		}
	}
	var version struct{ GitVersion string }
	if err := c.api(ctx, http.MethodGet, "/version", nil, &version); err != nil {
		return "", err
	}
	if version.GitVersion != c.bin.kubernetes {
		return "", fmt.Errorf("kube-apiserver reports version %s, want %s; check the linker flags of build.go", version.GitVersion, c.bin.kubernetes)
	}
	c.kubelet = newKubelet(ctx, c)
	return "kube-apiserver " + version.GitVersion, nil
}

// certificates writes a certificate that signs itself, and its key, which also signs
// the tokens of service accounts.
func (c *cluster) certificates() (*x509.CertPool, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certificate)
	return pool, errors.Join(
		os.WriteFile(c.file("tls.crt"), certificate, 0o600),
		os.WriteFile(c.file("tls.key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), 0o600),
	)
}

func (c *cluster) file(name string) string { return filepath.Join(c.dir, name) }

// kubeconfig writes the file that helm and kubectl use as one user.
func (c *cluster) kubeconfig(user, token string) error {
	// JSON is YAML.
	config := map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "test",
		"clusters": []any{map[string]any{"name": "test", "cluster": map[string]any{"server": c.address, "certificate-authority": c.file("tls.crt")}}},
		"users":    []any{map[string]any{"name": user, "user": map[string]any{"token": token}}},
		"contexts": []any{map[string]any{"name": "test", "context": map[string]any{"cluster": "test", "user": user, "namespace": namespace}}},
	}
	text, err := json.Marshal(config)
	if err != nil {
		return err
	}
	return os.WriteFile(c.file(user), text, 0o600)
}

func (c *cluster) launch(args []string) error {
	name := filepath.Base(args[0])
	log, err := os.Create(c.file(name + ".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	s := &server{name: name, log: log.Name(), done: make(chan struct{})}
	s.cmd = exec.Command(args[0], args[1:]...) //nolint:noctx // stop ends it, in order
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.SysProcAttr = log, log, childAttr()
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		defer close(s.done)
		_ = s.cmd.Wait() // the log has the reason
	}()
	c.servers = append(c.servers, s)
	return nil
}

// stop ends every server, the last one first.
func (c *cluster) stop() {
	if c.kubelet != nil {
		c.kubelet.stop()
	}
	for len(c.servers) > 0 {
		s := c.servers[len(c.servers)-1]
		c.servers = c.servers[:len(c.servers)-1]
		_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-s.done:
		case <-time.After(grace):
			_ = s.cmd.Process.Kill()
			<-s.done
		}
	}
}

// until waits for attempt to return nil. It ends early when a server has ended, or when
// the error is one that waiting does not change.
func (c *cluster) until(ctx context.Context, what string, attempt func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := attempt()
		if err == nil {
			return nil
		}
		var final finalError
		if errors.As(err, &final) {
			return err
		}
		for _, s := range c.servers {
			select {
			case <-s.done:
				return fmt.Errorf("%s ended while the test waited for %s; its log ends with\n%s", s.name, what, tail(s.log))
			default:
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited for %s: %w; the last attempt: %w", what, context.Cause(ctx), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// finalError ends a wait.
type finalError struct{ error }

func tail(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

// api sends one request as the administrator. A body is a merge patch.
func (c *cluster) api(ctx context.Context, method, path string, body, into any) error {
	var text bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&text).Encode(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.address+path, &text)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	if body != nil {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, answer)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}

// warning finds what the API server, Helm and kubectl warn of. Helm logs some errors and
// ends with exit code 0.
var warning = regexp.MustCompile(`(?im)^.*(warn|deprecat|level=error).*$`)

// command runs helm or kubectl as a user and returns what it printed. A warning is an error.
func (c *cluster) command(ctx context.Context, user, stdin, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = c.root
	cmd.Env = []string{"KUBECONFIG=" + c.file(user), "HOME=" + c.dir, "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = childAttr()
	cmd.WaitDelay = grace
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	line := filepath.Base(name) + " " + strings.Join(args, " ")
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", line, err, strings.TrimSpace(stderr.String()))
	}
	if found := warning.FindString(stderr.String()); found != "" {
		return "", fmt.Errorf("%s prints a warning: %s", line, found)
	}
	return stdout.String(), nil
}

func (c *cluster) kubectl(ctx context.Context, user string, args ...string) (string, error) {
	return c.command(ctx, user, "", c.bin.kubectl, args...)
}
