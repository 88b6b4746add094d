// The storage account: the package, the host's own blobs, and the router's tables. It has no usable keys.

@description('The name of the account.')
@minLength(3)
@maxLength(24)
param name string

@description('Where the account lives.')
param location string

@description('Tags of every resource.')
param tags object

@description('Keep the data in three availability zones.')
param zoneRedundant bool

@description('Reach it through private endpoints only.')
param isPrivate bool

@description('Addresses that may reach it all the same.')
param operatorAddresses string[]

@description('The id of the router\'s identity.')
param identityId string

@description('The object id of the router\'s identity, which gets the roles.')
param principalId string

@description('The subnet of the private endpoints.')
param subnetId string

@description('The DNS zone of blob endpoints.')
param blobZoneId string

@description('The DNS zone of table endpoints.')
param tableZoneId string

var blobDataOwner = 'b7e6dc6d-f1e8-4753-8033-0f276bb0955b'
var tableDataContributor = '0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3'
var container = 'packages'
var tableNames = ['RouterState', 'RouterUsage', 'RouterDecisions', 'RouterAnswers']

resource account 'Microsoft.Storage/storageAccounts@2025-01-01' = {
  name: name
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: { name: zoneRedundant ? 'Standard_ZRS' : 'Standard_LRS' }
  properties: {
    allowSharedKeyAccess: false
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    publicNetworkAccess: isPrivate && empty(operatorAddresses) ? 'Disabled' : 'Enabled'
    networkAcls: {
      defaultAction: isPrivate ? 'Deny' : 'Allow'
      bypass: 'None'
      ipRules: [for address in operatorAddresses: { value: address, action: 'Allow' }]
    }
  }

  resource blobs 'blobServices' = {
    name: 'default'

    resource packages 'containers' = {
      name: container
      properties: { publicAccess: 'None' }
    }
  }

  resource tableService 'tableServices' = {
    name: 'default'
  }
}

resource tables 'Microsoft.Storage/storageAccounts/tableServices/tables@2025-01-01' = [
  for table in tableNames: {
    parent: account::tableService
    name: table
  }
]

resource packagesAndHost 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(account.id, identityId, blobDataOwner)
  scope: account
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', blobDataOwner)
    principalId: principalId
    principalType: 'ServicePrincipal'
  }
}

resource routerTables 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(account.id, identityId, tableDataContributor)
  scope: account
  properties: {
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', tableDataContributor)
    principalId: principalId
    principalType: 'ServicePrincipal'
  }
}

module blobEndpoint 'endpoint.bicep' = if (isPrivate) {
  name: 'endpoint-${name}-blob'
  params: {
    name: '${name}-blob'
    location: location
    tags: tags
    targetId: account.id
    group: 'blob'
    subnetId: subnetId
    zoneId: blobZoneId
  }
}

module tableEndpoint 'endpoint.bicep' = if (isPrivate) {
  name: 'endpoint-${name}-table'
  params: {
    name: '${name}-table'
    location: location
    tags: tags
    targetId: account.id
    group: 'table'
    subnetId: subnetId
    zoneId: tableZoneId
  }
}

@description('The name of the account.')
output name string = account.name

@description('The address of its table service.')
output tablesEndpoint string = account.properties.primaryEndpoints.table

@description('The address of the container of packages.')
output packageContainer string = '${account.properties.primaryEndpoints.blob}${container}'
