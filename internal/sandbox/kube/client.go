package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/caesarion/caesarion/internal/errdefs"
)

const protobuf = "application/vnd.kubernetes.protobuf"

// codecs knows the few types that are used. client-go's own set of clients
// registers every type of every API when a program starts, and each sandbox of
// the one-machine driver starts this program several times.
var codecs = sync.OnceValue(func() serializer.CodecFactory {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, coordinationv1.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err) // the same types each time
		}
	}
	return serializer.NewCodecFactory(scheme)
})

var parameters = sync.OnceValue(func() runtime.ParameterCodec {
	scheme := runtime.NewScheme()
	for _, gv := range []schema.GroupVersion{corev1.SchemeGroupVersion, coordinationv1.SchemeGroupVersion} {
		metav1.AddToGroupVersion(scheme, gv)
	}
	return runtime.NewParameterCodec(scheme)
})

// LoadConfig says how to reach the API server: by the file kubeconfig; if that
// is "", as a pod of the cluster; and outside of one by $KUBECONFIG or
// ~/.kube/config, as kubectl does.
func LoadConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		cfg, err := rest.InClusterConfig()
		if err == nil {
			return cfg, nil
		}
		if os.Getenv("KUBERNETES_SERVICE_HOST") != "" { // a pod, whose account is missing or damaged
			return nil, errdefs.New(errdefs.ErrUnavailable, "cluster-config-missing", "this pod can't speak to the API server").
				WithHint("the pod needs its service account's token: automountServiceAccountToken").WithCause(err)
		}
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	if err != nil {
		from := kubeconfig
		if from == "" {
			from = filepath.Join("~", ".kube", "config")
		}
		return nil, errdefs.New(errdefs.ErrInvalid, "cluster-config-invalid", "%s does not say how to reach a cluster", from).
			WithHint("name a kubeconfig file that `kubectl --kubeconfig FILE get pods` works with").WithCause(err)
	}
	return cfg, nil
}

// client speaks to the API server about the objects of one namespace. What it
// returns of errors is the API server's; see apiError.
type client struct {
	core, coordination rest.Interface
	namespace          string
	http               *http.Client
}

func newClient(cfg *rest.Config, namespace string) (*client, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.UserAgent = "caesarion"
	cfg.NegotiatedSerializer = codecs().WithoutConversion()
	cfg.ContentType, cfg.AcceptContentTypes = protobuf, protobuf+",application/json"
	// The API server's own fairness says when to slow down (429, which is
	// retried); a limit here would have a lease wait behind a refill.
	cfg.QPS = -1
	cfg.WarningHandler = rest.NoWarnings{}
	transport, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("kube: %w", err)
	}
	core, err := restClient(cfg, corev1.SchemeGroupVersion, "/api", transport)
	if err != nil {
		return nil, err
	}
	coordination, err := restClient(cfg, coordinationv1.SchemeGroupVersion, "/apis", transport)
	if err != nil {
		return nil, err
	}
	return &client{core: core, coordination: coordination, namespace: namespace, http: transport}, nil
}

// close drops the connections that no call is using.
func (c *client) close() { utilnet.CloseIdleConnectionsFor(c.http.Transport) }

func restClient(cfg *rest.Config, gv schema.GroupVersion, path string, transport *http.Client) (rest.Interface, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.GroupVersion, cfg.APIPath = &gv, path
	c, err := rest.RESTClientForConfigAndClient(cfg, transport)
	if err != nil {
		return nil, fmt.Errorf("kube: %w", err)
	}
	return c, nil
}

func (c *client) createPod(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	out := &corev1.Pod{}
	err := c.core.Post().Namespace(c.namespace).Resource("pods").Body(pod).Do(ctx).Into(out)
	return out, err
}

// tryPod asks whether a pod would be created, and does not.
func (c *client) tryPod(ctx context.Context, pod *corev1.Pod) error {
	opts := &metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	return c.core.Post().Namespace(c.namespace).Resource("pods").VersionedParams(opts, parameters()).Body(pod).Do(ctx).Error()
}

func (c *client) getPod(ctx context.Context, name string) (*corev1.Pod, error) {
	out := &corev1.Pod{}
	err := c.core.Get().Namespace(c.namespace).Resource("pods").Name(name).Do(ctx).Into(out)
	return out, err
}

// patchPod applies a JSON merge patch. With metadata.resourceVersion in it the
// patch is a conflict (apierrors.IsConflict) if the pod has changed since.
func (c *client) patchPod(ctx context.Context, name string, patch any) (*corev1.Pod, error) {
	body, err := json.Marshal(patch)
	if err != nil {
		return nil, err
	}
	out := &corev1.Pod{}
	err = c.core.Patch(types.MergePatchType).Namespace(c.namespace).Resource("pods").Name(name).Body(body).Do(ctx).Into(out)
	return out, err
}

// deletePod asks for a pod's end; one that is not there is a success.
func (c *client) deletePod(ctx context.Context, name string, opts metav1.DeleteOptions) error {
	err := c.core.Delete().Namespace(c.namespace).Resource("pods").Name(name).Body(&opts).Do(ctx).Error()
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// pods lists and watches the pods with these labels.
func (c *client) pods(selector string) cache.ListerWatcher {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			opts.LabelSelector = selector
			out := &corev1.PodList{}
			err := c.core.Get().Namespace(c.namespace).Resource("pods").VersionedParams(&opts, parameters()).Do(ctx).Into(out)
			return out, err
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			opts.LabelSelector, opts.Watch = selector, true
			return c.core.Get().Namespace(c.namespace).Resource("pods").VersionedParams(&opts, parameters()).Watch(ctx)
		},
	}
}

// eventSelector leaves out what every pod has.
const eventSelector = "involvedObject.kind=Pod,reason!=Scheduled,reason!=Pulling,reason!=Pulled,reason!=Created,reason!=Started,reason!=Killing"

// events watches what the cluster says of pods from now on. Older ones are not
// listed: they are kept for an hour, and nobody waits for them any more.
func (c *client) events() cache.ListerWatcher {
	return fromNow{&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			opts.FieldSelector, opts.Limit, opts.Continue, opts.ResourceVersion, opts.ResourceVersionMatch = eventSelector, 1, "", "", ""
			out := &corev1.EventList{}
			err := c.core.Get().Namespace(c.namespace).Resource("events").VersionedParams(&opts, parameters()).Do(ctx).Into(out)
			out.Items, out.Continue, out.RemainingItemCount = nil, "", nil
			return out, err
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			opts.FieldSelector, opts.Watch = eventSelector, true
			return c.core.Get().Namespace(c.namespace).Resource("events").VersionedParams(&opts, parameters()).Watch(ctx)
		},
	}}
}

// fromNow keeps the reflector from having a watch begin with all that there is.
type fromNow struct{ *cache.ListWatch }

// IsWatchListSemanticsUnSupported is asked by the reflector.
func (fromNow) IsWatchListSemanticsUnSupported() bool { return true }

func (c *client) getLease(ctx context.Context, name string) (*coordinationv1.Lease, error) {
	out := &coordinationv1.Lease{}
	err := c.coordination.Get().Namespace(c.namespace).Resource("leases").Name(name).Do(ctx).Into(out)
	return out, err
}

func (c *client) createLease(ctx context.Context, lease *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	out := &coordinationv1.Lease{}
	err := c.coordination.Post().Namespace(c.namespace).Resource("leases").Body(lease).Do(ctx).Into(out)
	return out, err
}

// updateLease replaces a lease. Its resource version has to be the one that was
// read: otherwise it is a conflict.
func (c *client) updateLease(ctx context.Context, lease *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	out := &coordinationv1.Lease{}
	err := c.coordination.Put().Namespace(c.namespace).Resource("leases").Name(lease.Name).Body(lease).Do(ctx).Into(out)
	return out, err
}
