{{/* A file of deploy/envoy for a cluster: the servers are the addresses of the headless Service, and have TLS if there is
tls.existingSecret. Everything else stays as it is there. */}}
{{- define "patchserve.envoyConfig" -}}
{{- $file := printf "files/envoy/%s.yaml" .Values.envoy.policy -}}
{{- $config := .Files.Get $file | fromYaml -}}
{{- if not $config.static_resources -}}
{{- fail (printf "%s is missing: files/envoy has symbolic links to deploy/envoy, which this copy of the chart has lost" $file) -}}
{{- end -}}
{{- $listener := first $config.static_resources.listeners -}}
{{- $_ := set $listener.address.socket_address "port_value" 8443 -}}
{{- $cluster := first $config.static_resources.clusters -}}
{{- $_ := unset $cluster "eds_cluster_config" -}}
{{- $_ := unset $cluster "type" -}}
{{- $dns := dict "@type" "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster" "dns_refresh_rate" "2s" "dns_lookup_family" "V4_PREFERRED" -}}
{{- $_ := set $cluster "cluster_type" (dict "name" "envoy.cluster.dns" "typed_config" $dns) -}}
{{- $server := dict "address" (printf "%s.%s.svc" (include "patchserve.fullname" .) .Release.Namespace) "port_value" 50051 -}}
{{- $endpoints := list (dict "endpoint" (dict "address" (dict "socket_address" $server))) -}}
{{- $_ := set $cluster "load_assignment" (dict "cluster_name" $cluster.name "endpoints" (list (dict "lb_endpoints" $endpoints))) -}}
{{- if .Values.tls.existingSecret -}}
{{- $tls := $cluster.transport_socket.typed_config -}}
{{- $_ := set $tls "sni" "localhost" -}}
{{- $name := first $tls.common_tls_context.validation_context.match_typed_subject_alt_names -}}
{{- $_ := set $name.matcher "exact" "localhost" -}}
{{- if .Values.tls.clientCaKey -}}
{{- $certificate := dict "certificate_chain" (dict "filename" "/etc/envoy/client/tls.crt") "private_key" (dict "filename" "/etc/envoy/client/tls.key") -}}
{{- $_ := set $tls.common_tls_context "tls_certificates" (list $certificate) -}}
{{- end -}}
{{- else -}}
{{- $_ := unset $cluster "transport_socket" -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}
