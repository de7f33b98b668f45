{{/* The labels of every object. */}}
{{- define "celery-hpa.labels" -}}
app.kubernetes.io/name: celery-hpa
{{- end }}

{{/* By which pods are found: it never changes, a Deployment's selector cannot. */}}
{{- define "celery-hpa.selector" -}}
app.kubernetes.io/name: celery-hpa
{{- end }}

{{/* Whom rights are given to. */}}
{{- define "celery-hpa.subjects" -}}
subjects:
- {kind: ServiceAccount, name: {{ .Values.serviceAccount.name }}, namespace: {{ .Release.Namespace }}}
{{- end }}

{{- define "celery-hpa.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* How the API server comes to trust the certificate, as an annotation. */}}
{{- define "celery-hpa.trust" -}}
{{- if eq .Values.certificates.mode "cert-manager" }}
  annotations:
    cert-manager.io/inject-ca-from: {{ .Release.Namespace }}/celery-hpa-serving-cert
{{- end }}
{{- end }}

{{/*
Binds a ClusterRole to celery-hpa: in every namespace, or in those of rbac.namespaces.
Give it a dict of root (the top-level context) and name.
*/}}
{{- define "celery-hpa.bindings" -}}
{{- if .root.Values.rbac.namespaces }}
{{- range .root.Values.rbac.namespaces }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $.name }}
  namespace: {{ . }}
  labels:
    {{- include "celery-hpa.labels" $.root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ $.name }}
{{ include "celery-hpa.subjects" $.root }}
{{- end }}
{{- else }}
---
# In every namespace. To have it in a few only, write in place of this binding one
# RoleBinding in each of them, with the same roleRef and subjects (in Helm:
# rbac.namespaces).
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ .name }}
  labels:
    {{- include "celery-hpa.labels" .root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ .name }}
{{ include "celery-hpa.subjects" .root }}
{{- end }}
{{- end }}
