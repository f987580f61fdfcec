// Package netpol enforces NetworkPolicy (networking.k8s.io/v1) on a single test
// node with nftables.
//
// Every change rewrites one table ("inet netpol") in one transaction. It needs the
// frames of the bridge in the hooks of IP (net.bridge.bridge-nf-call-iptables=1), and
// runs in the node's network namespace.
//
// Its limits: IPv4 only; a new pod is open until its address is in its status, up to
// a second; connections that exist survive a new policy; a named port of an egress
// rule means that port of any pod.
package netpol

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"sort"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	netv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Run enforces until ctx ends. The node's own addresses are always let in, as
// probes come from them.
func Run(ctx context.Context, c kubernetes.Interface, nodeIPs []string) error {
	f := informers.NewSharedInformerFactory(c, 0)
	pods, nss, pols := f.Core().V1().Pods(), f.Core().V1().Namespaces(), f.Networking().V1().NetworkPolicies()
	kick := make(chan struct{}, 1)
	poke := func(any) {
		select {
		case kick <- struct{}{}:
		default:
		}
	}
	h := cache.ResourceEventHandlerFuncs{AddFunc: poke, UpdateFunc: func(_, o any) { poke(o) }, DeleteFunc: poke}
	for _, i := range []cache.SharedIndexInformer{pods.Informer(), nss.Informer(), pols.Informer()} {
		if _, err := i.AddEventHandler(h); err != nil {
			return err
		}
	}
	f.Start(ctx.Done())
	f.WaitForCacheSync(ctx.Done())
	last := ""
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-kick:
		}
		time.Sleep(20 * time.Millisecond) // gather a burst
		pl, err := pods.Lister().List(labels.Everything())
		if err != nil {
			return err
		}
		nl, err := nss.Lister().List(labels.Everything())
		if err != nil {
			return err
		}
		ol, err := pols.Lister().List(labels.Everything())
		if err != nil {
			return err
		}
		rules, err := Render(pl, nl, ol, nodeIPs)
		if err != nil {
			return err
		}
		if rules == last {
			continue
		}
		cmd := exec.CommandContext(ctx, "nft", "-f", "-")
		cmd.Stdin = strings.NewReader(rules)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("nft: %w: %s\n%s", err, out, rules)
		}
		last = rules
		fmt.Printf("%s netpol: %d pods %d policies applied\n", time.Now().Format("15:04:05.000"), len(pl), len(ol))
	}
}

// Render gives the whole table as an nft script.
func Render(pods []*corev1.Pod, nss []*corev1.Namespace, pols []*netv1.NetworkPolicy, nodeIPs []string) (string, error) {
	nsl := map[string]labels.Set{}
	for _, n := range nss {
		nsl[n.Name] = n.Labels
	}
	var live []*corev1.Pod
	for _, p := range pods {
		if p.Status.PodIP != "" && !p.Spec.HostNetwork && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
			live = append(live, p)
		}
	}
	sort.Slice(live, func(i, j int) bool { return live[i].Status.PodIP < live[j].Status.PodIP })
	sort.Slice(pols, func(i, j int) bool {
		return pols[i].Namespace+"/"+pols[i].Name < pols[j].Namespace+"/"+pols[j].Name
	})
	var in, out, chains bytes.Buffer
	for _, p := range live {
		var iRules, eRules []string
		isolIn, isolEg := false, false
		for _, np := range pols {
			if np.Namespace != p.Namespace {
				continue
			}
			sel, err := metav1.LabelSelectorAsSelector(&np.Spec.PodSelector)
			if err != nil {
				return "", err
			}
			if !sel.Matches(labels.Set(p.Labels)) {
				continue
			}
			ing, eg := types(np)
			if ing {
				isolIn = true
				for _, r := range np.Spec.Ingress {
					rs, err := rule("saddr", r.From, r.Ports, np.Namespace, live, nsl, []*corev1.Pod{p})
					if err != nil {
						return "", err
					}
					iRules = append(iRules, rs...)
				}
			}
			if eg {
				isolEg = true
				for _, r := range np.Spec.Egress {
					rs, err := rule("daddr", r.To, r.Ports, np.Namespace, live, nsl, live)
					if err != nil {
						return "", err
					}
					eRules = append(eRules, rs...)
				}
			}
		}
		id := strings.ReplaceAll(p.Status.PodIP, ".", "_")
		emit := func(dir string, m *bytes.Buffer, match string, rules []string) {
			fmt.Fprintf(m, "    %s %s jump %s_%s\n", match, p.Status.PodIP, dir, id)
			fmt.Fprintf(&chains, "  chain %s_%s { # %s/%s\n", dir, id, p.Namespace, p.Name)
			for _, r := range rules {
				fmt.Fprintf(&chains, "    %s return\n", r)
			}
			fmt.Fprintf(&chains, "    counter drop\n  }\n")
		}
		if isolIn {
			emit("in", &in, "ip daddr", iRules)
		}
		if isolEg {
			emit("eg", &out, "ip saddr", eRules)
		}
	}
	return fmt.Sprintf(`table inet netpol {}
delete table inet netpol
table inet netpol {
%s  chain forward {
    type filter hook forward priority -10; policy accept;
    ct state established,related accept
    ip saddr { %s } accept
%s%s  }
  chain input {
    # egress of a pod to the node itself: the node is outside every podSelector, ipBlock may name it
    type filter hook input priority -10; policy accept;
    ct state established,related accept
%s  }
}
`, chains.String(), strings.Join(nodeIPs, ", "), out.String(), in.String(), out.String()), nil
}

func types(np *netv1.NetworkPolicy) (in, eg bool) {
	if len(np.Spec.PolicyTypes) == 0 {
		return true, len(np.Spec.Egress) > 0
	}
	for _, t := range np.Spec.PolicyTypes {
		in = in || t == netv1.PolicyTypeIngress
		eg = eg || t == netv1.PolicyTypeEgress
	}
	return in, eg
}

// rule gives the nft matches of one ingress or egress rule: the product of its peers and its ports.
func rule(dir string, peers []netv1.NetworkPolicyPeer, ports []netv1.NetworkPolicyPort, ns string, live []*corev1.Pod, nsl map[string]labels.Set, targets []*corev1.Pod) ([]string, error) {
	var from []string
	if len(peers) == 0 {
		from = []string{""}
	}
	var ips []string
	for _, p := range peers {
		if b := p.IPBlock; b != nil {
			m := fmt.Sprintf("ip %s %s", dir, b.CIDR)
			if len(b.Except) > 0 {
				m += fmt.Sprintf(" ip %s != { %s }", dir, strings.Join(b.Except, ", "))
			}
			from = append(from, m)
			continue
		}
		psel, nsel := labels.Everything(), labels.Nothing()
		var err error
		if p.PodSelector != nil {
			if psel, err = metav1.LabelSelectorAsSelector(p.PodSelector); err != nil {
				return nil, err
			}
		}
		if p.NamespaceSelector != nil {
			if nsel, err = metav1.LabelSelectorAsSelector(p.NamespaceSelector); err != nil {
				return nil, err
			}
		}
		for _, q := range live {
			okNS := q.Namespace == ns
			if p.NamespaceSelector != nil {
				okNS = nsel.Matches(nsl[q.Namespace])
			}
			if okNS && psel.Matches(labels.Set(q.Labels)) {
				ips = append(ips, q.Status.PodIP)
			}
		}
	}
	if len(ips) > 0 {
		sort.Strings(ips)
		from = append(from, fmt.Sprintf("ip %s { %s }", dir, strings.Join(uniq(ips), ", ")))
	}
	to := []string{""}
	if len(ports) > 0 {
		to = nil
		for _, p := range ports {
			proto := "tcp"
			if p.Protocol != nil {
				proto = strings.ToLower(string(*p.Protocol))
			}
			switch {
			case p.Port == nil:
				to = append(to, "meta l4proto "+proto)
			case p.Port.Type == intstr.String:
				for _, n := range named(targets, p.Port.StrVal, proto) {
					to = append(to, fmt.Sprintf("%s dport %d", proto, n))
				}
			case p.EndPort != nil:
				to = append(to, fmt.Sprintf("%s dport %d-%d", proto, p.Port.IntVal, *p.EndPort))
			default:
				to = append(to, fmt.Sprintf("%s dport %d", proto, p.Port.IntVal))
			}
		}
	}
	var res []string
	for _, a := range from {
		for _, b := range to {
			res = append(res, strings.TrimSpace(a+" "+b))
		}
	}
	return res, nil
}

func named(pods []*corev1.Pod, name, proto string) []int32 {
	seen := map[int32]bool{}
	var r []int32
	for _, p := range pods {
		for _, c := range p.Spec.Containers {
			for _, cp := range c.Ports {
				if cp.Name == name && strings.EqualFold(string(cp.Protocol), proto) && !seen[cp.ContainerPort] {
					seen[cp.ContainerPort] = true
					r = append(r, cp.ContainerPort)
				}
			}
		}
	}
	return r
}

func uniq(s []string) []string {
	r := s[:0]
	for i, x := range s {
		if i == 0 || x != s[i-1] {
			r = append(r, x)
		}
	}
	return r
}
