// The vault of provider and caller keys. The template reads and writes no secret.

@description('The name of the vault.')
@minLength(3)
@maxLength(24)
param name string

@description('Where the vault lives.')
param location string

@description('Tags of every resource.')
param tags object

@description('Days for which it can be brought back after it was deleted.')
@minValue(7)
@maxValue(90)
param retentionDays int

@description('Bring back the deleted vault of this name.')
param recover bool

@description('Reach it through a private endpoint only.')
param isPrivate bool

@description('Addresses that may reach it all the same.')
param operatorAddresses string[]

@description('The id of the router\'s identity.')
param identityId string

@description('The object id of the router\'s identity, which reads secrets.')
param principalId string

@description('Who writes secrets; empty for nobody.')
param officerId string

@description('Where its audit log goes.')
param workspaceId string

@description('The subnet of the private endpoint.')
param subnetId string

@description('The DNS zone of vaults.')
param zoneId string

var secretsUser = '4633458b-17de-408a-b874-0445c86b69e6'
var secretsOfficer = 'b86a8fe4-44ce-4948-aee5-eccb2c155cd7'

resource vault 'Microsoft.KeyVault/vaults@2024-11-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    tenantId: tenant().tenantId
    sku: {
      family: 'A'
      name: 'standard'
    }
    createMode: recover ? 'recover' : 'default'
    enableRbacAuthorization: true
    enableSoftDelete: true
    enablePurgeProtection: true
    softDeleteRetentionInDays: retentionDays
    publicNetworkAccess: isPrivate && empty(operatorAddresses) ? 'Disabled' : 'Enabled'
    networkAcls: {
      defaultAction: isPrivate ? 'Deny' : 'Allow'
      bypass: 'None'
      ipRules: [for address in operatorAddresses: { value: address }]
    }
  }
}

resource routerReads 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(vault.id, identityId, secretsUser)
  scope: vault
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', secretsUser)
    principalId: principalId
    principalType: 'ServicePrincipal'
  }
}

// No principalType: it may be a person or an application.
resource officerWrites 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty(officerId)) {
  name: guid(vault.id, officerId, secretsOfficer)
  scope: vault
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', secretsOfficer)
    principalId: officerId
  }
}

resource audit 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  name: 'audit'
  scope: vault
  properties: {
    workspaceId: workspaceId
    logAnalyticsDestinationType: 'Dedicated'
    logs: [
      {
        categoryGroup: 'audit'
        enabled: true
      }
    ]
  }
}

module endpoint 'endpoint.bicep' = if (isPrivate) {
  name: 'endpoint-${name}-vault'
  params: {
    name: '${name}-vault'
    location: location
    tags: tags
    targetId: vault.id
    group: 'vault'
    subnetId: subnetId
    zoneId: zoneId
  }
}

@description('The name of the vault.')
output name string = vault.name

@description('The address of the vault, with a slash at its end.')
output uri string = vault.properties.vaultUri
