# Vault Agent on a machine with the systemd unit: it renders each secret into a file of /etc/scimtail/secrets, and restarts
# scimtail if one changes. systemd copies the files when the service starts (LoadCredential), so a changed one needs that
# restart. It takes a second and loses no event.
#
#   vault agent -config=/etc/vault-agent/scimtail.hcl
#
# The agent runs as root, because it writes that folder and restarts the service.

vault {
  address = "https://vault.intern.example:8200"
}

auto_auth {
  method "approle" {
    config = {
      role_id_file_path                   = "/etc/vault-agent/role-id"
      secret_id_file_path                 = "/etc/vault-agent/secret-id"
      remove_secret_id_file_after_reading = false
    }
  }
}

template_config {
  # A secret without a lease, as those of KV are, is read again this often.
  static_secret_render_interval = "5m"
  # Without the secrets the service cannot start: better the agent fails, and says so.
  exit_on_retry_failure = true
}

template {
  destination          = "/etc/scimtail/secrets/stripe"
  perms                = "0400"
  error_on_missing_key = true
  contents             = "{{ with secret \"secret/data/scimtail\" }}{{ .Data.data.stripe }}{{ end }}"
  exec {
    command = ["systemctl", "try-restart", "scimtail.service"]
    timeout = "30s"
  }
}

template {
  destination          = "/etc/scimtail/secrets/kafka-password"
  perms                = "0400"
  error_on_missing_key = true
  contents             = "{{ with secret \"secret/data/scimtail\" }}{{ index .Data.data \"kafka-password\" }}{{ end }}"
  exec {
    command = ["systemctl", "try-restart", "scimtail.service"]
    timeout = "30s"
  }
}
